"""Several models in one service: plans are followed under load, nobody is lost, and a bad model harms nobody."""

from __future__ import annotations

import contextlib
import json
import random
import secrets
import shutil
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from server import BEARER, Server, start

from fieldbook import FieldbookError
from fieldbook.observe.log import outcomes, records
from fieldbook.serve.following import load
from fieldbook.serve.plan import Plan, latest, read_plan, write_plan
from fieldbook.serve.planted import challenger
from fieldbook.serve.several import arms
from fieldbook.serve.small import served, small_champion

GOOD = {"origin": "EWR", "wind": 31.5}
WAYS: dict[str, Callable[[str], dict[str, Any]]] = {
    "canary": lambda version: {"way": "canary", "challenger": version, "share": 0.5},
    "ab": lambda version: {"way": "ab", "shares": {version: 0.5}, "by": ["origin"]},
    "bandit": lambda version: {"way": "bandit", "shares": {version: 0.6}, "floor": 0.1},
    "interleaving": lambda version: {"way": "interleaving", "challenger": version, "first": 2},
    "shadow": lambda version: {"way": "shadow", "challenger": version},
}


@pytest.fixture(scope="module")
def wind(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder of models: the small champion as `same`, others with a fault each; and their versions."""
    folder = tmp_path_factory.mktemp("wind")
    small_champion(folder)
    versions = {how: challenger(folder, folder / "models", how) for how in ("same", "flipped", "nan", "error", "slow")}
    return folder / "models", versions


@pytest.fixture
def models(wind: tuple[Path, dict[str, str]], tmp_path: Path) -> Path:
    """A copy of that folder, for plans of a test's own."""
    return Path(shutil.copytree(wind[0], tmp_path / "models"))


def wait(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """Wait until something holds; return it."""
    end = time.monotonic() + seconds
    while not (held := condition()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
    return held


@pytest.mark.parametrize(("how", "way"), [*(("error", way) for way in WAYS), ("nan", "ab"), ("slow", "canary")])
def test_who_does_not_answer_is_stopped_and_nobody_sees_it(
    models: Path, wind: tuple[Path, dict[str, str]], how: str, way: str
) -> None:
    """Within 50 requests dealt to it; every caller has the champion's answer; the plan says who, why and how sure."""
    bad, own = wind[1][how], wind[1]["same"]
    write_plan(models, Plan(number=1, champion=own, who="Ada", when="now", why="to see", test=WAYS[way](bad)))
    body = [{**GOOD, "origin": name} for name in "EWR JFK LGA BOS ATL ORD LAX SFO".split()]
    with served(models / own, FIELDBOOK_MODELS=str(models)) as (client, front, logs):
        for _ in range(150):
            answer = client.post("/predict", json=body)
            assert answer.status_code == 200 and {(one["probability"], one["fallback"]) for one in answer.json()} == {
                (0.9, None)
            }
            if front.app.traffic.plan.number > 1:
                break
        wait(lambda: front.app.traffic.plan.number == 2)
    stopped = read_plan(models, 2)
    assert (stopped.test, stopped.who, stopped.champion) == (None, "service", own) and bad in stopped.why
    assert 20 <= stopped.evidence["requests"] <= 50 and stopped.evidence["failed"] == stopped.evidence["requests"]
    rows = records(logs, "shadow" if way == "shadow" else "predictions")
    failed = [row for row in rows if row["failed"]]
    assert {row["failed"] for row in failed} == {"late" if how == "slow" else "error"}
    assert {row["arm"] for row in failed} == {bad} and len({row["request_id"][:32] for row in failed}) <= 50
    assert {row["model_version"] for row in failed} == {bad if way == "shadow" else own}


def test_where_no_plan_can_be_written_the_worker_goes_by_itself(
    models: Path, wind: tuple[Path, dict[str, str]]
) -> None:
    """It deals nothing more to the challenger, and answers."""
    bad, own = wind[1]["error"], wind[1]["same"]
    write_plan(models, Plan(number=1, champion=own, who="Ada", when="now", why="to see", test=WAYS["canary"](bad)))
    with served(models / own, FIELDBOOK_MODELS=str(models)) as (client, front, logs):
        shutil.rmtree(models / "plans")
        (models / "plans").write_text("no folder")
        for _ in range(120):
            assert client.post("/predict", json=GOOD).json()["probability"] == 0.9
    dealt = [row["arm"] for row in records(logs)]
    assert 20 <= dealt.count(bad) <= 50 and set(dealt[-20:]) == {"champion"}


def test_a_plan_that_cannot_be_followed_is_refused_in_words(models: Path, wind: tuple[Path, dict[str, str]]) -> None:
    """By the call, and from the file; the old plan stays, and a later good one is followed."""
    own, flipped = wind[1]["same"], wind[1]["flipped"]
    damaged = models / ("d" * 12)
    shutil.copytree(models / flipped, damaged)
    told = json.loads((damaged / "manifest.json").read_text())
    (damaged / "manifest.json").write_text(json.dumps(told | {"version": "d" * 12}))
    (damaged / "model.onnx").write_bytes(b"damaged")
    words = challenger(models / own, models, "same", framing={**told["framing"], "positive": "delayed"})
    fields = challenger(models / own, models, "same", request={"wind": told["request"]["wind"]}, samples=[])
    broken = {
        "is not the one that manifest.json describes": {"champion": "d" * 12},
        "there is no model 000000000000": {"champion": "0" * 12},
        "in other words": {"champion": words},
        "other fields of a request: origin": {"test": WAYS["canary"](fields)},
        "a request has no such field": {"test": {"way": "ab", "shares": {flipped: 0.5}, "by": ["tail"]}},
        "its own challenger": {"test": WAYS["canary"](own)},
        "there is no such setting": {"tset": None},
        "leave it out": {"when": "now"},
        "shares add up to more": {"test": {"way": "bandit", "shares": {flipped: 0.95}, "floor": 0.1}},
    }
    said = {"champion": own, "who": "Ada", "why": "to see"}
    with served(models / own, FIELDBOOK_MODELS=str(models), FIELDBOOK_TOKEN="t") as (client, front, logs):
        bearer = {"Authorization": "Bearer t"}
        for why, plan in broken.items():
            answer = client.post("/plan", json=said | plan, headers=bearer)
            assert answer.status_code == 422 and why in answer.json()["error"], (why, answer.text)
        assert client.post("/plan", content=b"[1", headers=bearer).status_code == 422
        assert client.post("/plan", json=said).status_code == 401 and latest(models) == 0
        first = client.post("/plan", json=said | {"number": 1}, headers=bearer).json()
        assert first["number"] == 1 and first["when"] and first["champion"] == own
        again = client.post("/plan", json=said | {"number": 1}, headers=bearer)
        assert again.status_code == 409 and "has the number 2" in again.json()["error"]
        write_plan(models, Plan(number=2, champion="0" * 12, who="Ada", when="now", why="to see"))
        refused = wait(lambda: client.get("/plan").json()["refused"])
        assert refused["number"] == 2 and "there is no model" in refused["why"]
        assert client.get("/plan").json()["plan"] == first and client.post("/predict", json=GOOD).status_code == 200
        (models / "plans/000003.json").write_text("{")
        wait(lambda: client.get("/plan").json()["refused"]["number"] == 3)
        write_plan(models, Plan(number=9, champion=flipped, who="Ada", when="now", why="to see"))
        wait(lambda: client.get("/plan").json()["champion"] == flipped)
        assert client.get("/model").json()["version"] == flipped == client.get("/docs.json").json()["info"]["version"]
        assert client.post("/predict", json=GOOD).json()["model_version"] == flipped
    with served(models / own, FIELDBOOK_TOKEN="t") as (client, _, _):
        assert client.post("/plan", json=said, headers=bearer).status_code == 403
        assert client.get("/plan").json()["plan"] is None


def test_without_a_plan_the_log_is_as_it_was(models: Path, wind: tuple[Path, dict[str, str]]) -> None:
    """No column more, with a folder of models or without."""
    for env in ({}, {"FIELDBOOK_MODELS": str(models)}):
        with served(models / wind[1]["same"], **env) as (client, _, logs):
            client.post("/predict", json=GOOD)
        (row,) = records(logs)
        assert not {"plan", "arm", "arm_propensity", "failed", "model_ms", "unit"} & row.keys()
        assert not list(logs.glob("shadow*"))


def test_drawn_and_kept_decisions_go_on_under_a_plan(tmp_path: Path) -> None:
    """Each model's own decisions are drawn, with their probability; what was told a subject is kept over models."""
    small_champion(tmp_path, explore={"share": 0.5}, steady={"by": ["origin"], "margin": 0.45})
    models = tmp_path / "models"
    own, flipped = (challenger(tmp_path, models, how) for how in ("same", "flipped"))
    write_plan(models, Plan(number=1, champion=own, who="Ada", when="now", why="to see", test=WAYS["canary"](flipped)))
    with served(models / own, FIELDBOOK_MODELS=str(models), FIELDBOOK_TOKEN="t") as (client, front, logs):
        for number in range(300):
            assert client.post("/predict", json={**GOOD, "origin": f"{number:03}"}).status_code == 200
        drafted = {"champion": own, "who": "Ada", "why": "to see", "test": WAYS["interleaving"](flipped)}
        refused = client.post("/plan", json=drafted, headers={"Authorization": "Bearer t"})
        assert refused.status_code == 422 and "steady or explore" in refused.json()["error"]
    rows = records(logs)
    assert {(row["arm"] == flipped, row["propensity"]) for row in rows} == {
        (arm, share) for arm in (True, False) for share in (0.25, 0.75)
    }
    assert all(row["propensity"] == 0.25 for row in rows if (row["decision"] == "late") == (row["arm"] == flipped))
    assert all(row["subject"] and not row["kept"] for row in rows)


def test_a_log_can_be_played_again_with_its_times(models: Path, wind: tuple[Path, dict[str, str]]) -> None:
    """`x-time` is the time of the rows, where the service was told so and nowhere else."""
    for replay, year in (("1", "2013-04-01T10:00:00.000+00:00"), ("0", None)):
        env = {"FIELDBOOK_REPLAY": replay, "FIELDBOOK_TOKEN": "t"}
        with served(models / wind[1]["same"], **env) as (client, _, logs):
            headers = {"X-Time": "2013-04-01T12:00:00+02:00", "Authorization": "Bearer t"}
            name = client.post("/predict", json=GOOD, headers=headers).json()["request_id"]
            client.post("/feedback", json={"request_id": name, "outcome": "late"}, headers=headers)
            wrong = client.post("/predict", json=GOOD, headers={"X-Time": "yesterday"})
            assert wrong.status_code == (422 if year else 200)
        row = outcomes(logs)[0].iloc[0]
        assert (row.time == year, row.outcome_time == year) == (bool(year), bool(year))


# ---- the real server, with two workers ----


class Tried:
    """A project's champion, a challenger that says the opposite, and a server with two workers that follows plans."""

    def __init__(self, project: Path, folder: Path) -> None:
        self.project, self.folder, self.models = project, folder, folder / "models"
        champion = project / "data/champion"
        self.versions = {how: challenger(champion, self.models, how) for how in ("flipped", "nan", "fallback")}
        told = json.loads((champion / "manifest.json").read_text())
        self.own, self.samples = told["version"], [sample["request"] for sample in told["samples"]]
        words = [name for name, column in told["request"].items() if column["type"] == "str" and not column["nullable"]]
        self.by, self.binary = words[:2] or list(told["request"])[:1], told["framing"]["kind"] == "binary"
        config = folder / "bentoml.yaml"
        config.write_text("services: {fieldbook: {workers: 2, logging: {access: {enabled: false}}}}\n")
        self.env = {"BENTOML_CONFIG": str(config), "FIELDBOOK_MODELS": str(self.models)}

    def start(self) -> Server:
        """Start a server."""
        return start(self.project, self.folder, **self.env)

    def plan(self, client: httpx.Client, **more: Any) -> dict[str, Any]:
        """Change the plan by a call."""
        said = {"champion": self.own, "who": "Ada", "why": "to see"}
        answer = client.post("/plan", json=said | more, headers=BEARER)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def tests(self) -> list[dict[str, Any]]:
        """Return plans of every way."""
        one, other = self.versions["flipped"], self.versions["fallback"]
        out = {"model": other, "share": 0.2, "by": self.by[:1]}
        plans = [
            {"test": {"way": "canary", "challenger": one, "share": 0.3}, "salt": "a"},
            {"test": {"way": "canary", "challenger": one, "share": 0.2, "by": self.by}, "holdout": out},
            {"test": {"way": "ab", "shares": {one: 0.3, other: 0.3}, "by": self.by}, "salt": "b"},
            {"test": {"way": "bandit", "shares": {one: 0.5, other: 0.2}, "floor": 0.1}},
            {"test": {"way": "shadow", "challenger": one}},
            {"champion": one, "test": {"way": "canary", "challenger": self.own, "share": 0.5}},
            {"champion": other, "holdout": {**out, "model": one}},
        ]
        drafted = {"test": {"way": "interleaving", "challenger": one, "first": 3}, "salt": "c", "holdout": out}
        return plans + [drafted] * self.binary


@pytest.fixture(scope="module")
def tried(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Tried:
    """What is tried with the real server."""
    return Tried(project, tmp_path_factory.mktemp("tried"))


class Load:
    """Clients that ask for 1 to 8 rows, one request after the other, until told to end.

    Attributes
    ----------
    answered : by request id, the answers.
    other : what was no answer.
    asked : when each request was sent, and the versions that answered it.
    """

    def __init__(self, server: Server, samples: list[dict[str, Any]], clients: int = 4) -> None:
        self.url, self.samples, self.over = str(server.client.base_url), samples, threading.Event()
        self.name = f"load-{secrets.token_hex(4)}"  # the folder of the log outlives a test
        self.answered: dict[str, list[dict[str, Any]]] = {}
        self.other: list[Any] = []
        self.asked: list[tuple[float, set[str]]] = []
        self.threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(clients)]
        for thread in self.threads:
            thread.start()

    def _ask(self, number: int) -> None:
        chance = random.Random(number)
        client = httpx.Client(base_url=self.url, timeout=20)
        for turn in range(50_000):
            if self.over.is_set():
                return client.close()
            if turn % 20 == 19:  # another connection is another worker, perhaps
                client.close()
                client = httpx.Client(base_url=self.url, timeout=20)
            name, began = f"{self.name}-{number}-{turn}", time.monotonic()
            body = chance.choices(self.samples, k=chance.randint(1, 8))
            try:
                answer = client.post("/predict", json=body, headers={"X-Request-ID": name})
            except httpx.TransportError as error:
                self.other.append(error)
                continue
            if answer.status_code == 200:
                self.answered[name] = answer.json()
                self.asked.append((began, {one["model_version"] for one in answer.json()}))
            else:
                self.other.append((answer.status_code, answer.text))

    def end(self) -> None:
        """Stop asking, and wait for the last answers."""
        self.over.set()
        for thread in self.threads:
            thread.join()


@contextlib.contextmanager
def under_load(server: Server, samples: list[dict[str, Any]]) -> Iterator[Load]:
    """Ask while something else happens."""
    load = Load(server, samples)
    try:
        yield load
    finally:
        load.end()


def wrong_arms(rows: list[dict[str, Any]], models: Path) -> list[str]:
    """Return the rows of a log whose arm, propensity, unit or model is not what their plan says, recomputed."""
    lineages = {
        path.parent.name: json.loads(path.read_text())["lineage"]["id"] for path in models.glob("*/manifest.json")
    }
    requests: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        requests[row["request_id"].rpartition("/")[0]].append(row)
    wrong = []
    for name, some in requests.items():
        some.sort(key=lambda row: int(row["request_id"].rpartition("/")[2]))
        plan = read_plan(models, some[0]["plan"])
        columns = {field: [row["inputs"][field] for row in some] for field in some[0]["inputs"]}
        dealt = arms(plan, columns, name, len(some), b"")
        drafted = plan.test is not None and plan.test.way == "interleaving"
        free = sum(one.arm != "holdout" for one in dealt)
        for row, one in zip(some, dealt):
            lineage = lineages.get(row["model_version"])
            right = row["plan"] == plan.number and row["unit"] == one.unit and lineage in (None, row["lineage"])
            if drafted and one.arm != "holdout" and free > plan.test.first and row["failed"]:
                right &= (row["arm"], row["model_version"]) == (plan.test.challenger, plan.champion)
            elif drafted and one.arm != "holdout" and free > plan.test.first:
                version = row["arm"] if row["arm"] in plan.challengers else plan.champion
                right &= row["arm"] in ("champion", "baseline", *plan.challengers) and 0 < row["arm_propensity"] <= 0.8
                right &= row["model_version"] == version
            else:
                right &= (row["arm"], row["arm_propensity"]) == (one.arm, one.propensity)
                right &= row["model_version"] == (plan.champion if row["failed"] else one.version)
            if not right:
                wrong.append(json.dumps(row)[:400])
        if drafted and free > plan.test.first and not any(row["failed"] for row in some):
            picked = sum(row["arm"] in ("baseline", *plan.challengers) for row in some)
            wrong += [f"{name}: {picked} rows were drafted"] * (picked != plan.test.first)
    return wrong


@pytest.mark.parametrize("times", [60, pytest.param(1_000, marks=pytest.mark.slow)])
def test_the_plan_changes_under_load_and_nothing_is_lost(tried: Tried, times: int) -> None:
    """Every request has its answer and its rows, and every row the arm that its plan gives it."""
    server, tests = tried.start(), tried.tests()
    try:
        with under_load(server, tried.samples) as load, httpx.Client(base_url=server.client.base_url) as client:
            first = latest(tried.models)
            for turn in range(times):
                tried.plan(client, **tests[turn % len(tests)])
                time.sleep(0.01)
            time.sleep(0.3)
    finally:
        server.stop()
    rows = [row for row in records(server.logs) if row["request_id"].startswith(load.name)]
    told = {one["request_id"]: one for answers in load.answered.values() for one in answers}
    logged, planned = Counter(row["request_id"] for row in rows), [row for row in rows if row.get("plan")]
    lost = [name for name in told.keys() | logged.keys() if name not in told or logged[name] != 1]
    other = [row["request_id"] for row in rows if not told[row["request_id"]].items() <= row.items()]
    wrong, seen = wrong_arms(planned, tried.models), {row["plan"] for row in planned}
    late = sum(row["failed"] is not None for row in planned)  # where the machine is busy with something else
    print(
        f"{times} changes, {len(load.answered):,} requests, {len(rows):,} rows of {len(seen)} plans: {len(load.other)} "
        f"not answered, {len(lost)} lost, {len(wrong)} with a wrong arm, {late} late"
    )
    assert not load.other and latest(tried.models) >= first + times and len(seen) > times / 3
    assert not lost[:3] and not other[:3] and not wrong[:3] and late <= len(planned) / 100
    ours = [path for path in server.logs.glob("predictions-*.jsonl") if load.name in path.read_text()]
    processes = {path.name.split("-")[2] for path in ours}
    assert len(processes) == 2, "both workers answered"


@pytest.mark.slow
def test_what_fails_is_stopped_over_all_workers_and_a_restart_keeps_the_plan(tried: Tried) -> None:
    """No caller sees it; within 50 requests of both workers; killed and started again, the same plan is followed."""
    server, bad = tried.start(), tried.versions["nan"]
    try:
        with under_load(server, tried.samples) as load:
            begun = tried.plan(server.client, test={"way": "canary", "challenger": bad, "share": 0.2})["number"]
            wait(lambda: latest(tried.models) > begun)
            before = time.monotonic()
            tried.plan(server.client, champion=tried.versions["flipped"])
            wait(lambda: load.asked and load.asked[-1][1] == {tried.versions["flipped"]})
            time.sleep(0.7)
        assert not load.other and all(one["fallback"] is None for some in load.answered.values() for one in some)
        late = [began - before for began, versions in load.asked if began > before and tried.own in versions]
        print(f"promotion: the last request that the old champion answered was sent {max(late, default=0):.3f} s after")
        assert max(late, default=0) < 5
        rows = [
            row for row in records(server.logs) if row.get("arm") == bad and row["request_id"].startswith(load.name)
        ]
        failed = {row["request_id"].rpartition("/")[0] for row in rows if row["failed"]}
        print(f"stopped after {len(failed)} requests of both workers")
        assert 20 <= len(failed) <= 50 and read_plan(tried.models, begun + 1).who == "service"
        server.stop(signal.SIGKILL)
        server = tried.start()
        assert server.client.get("/plan").json()["plan"]["number"] == begun + 2
        answer = server.client.post("/predict", json=tried.samples[0]).json()
        assert answer["model_version"] == tried.versions["flipped"]
    finally:
        server.stop(signal.SIGKILL)
    with pytest.raises(FieldbookError, match="there is no model"):
        load_missing(tried.models)


def load_missing(models: Path) -> None:
    """Try to load a model that is not there."""
    load(models, "0" * 12, "")
