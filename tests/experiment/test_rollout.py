"""A challenger is tried, judged, promoted and taken back on the real server, with traffic on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from server import BEARER, Server, start

from fieldbook.core.section import section
from fieldbook.experiment import rollout
from fieldbook.experiment.change import history
from fieldbook.experiment.horizon import Design
from fieldbook.experiment.judge import decide, time_of
from fieldbook.experiment.models import put
from fieldbook.experiment.registry import aliases, align, registered
from fieldbook.experiment.rollout import Rollout
from fieldbook.features.request import frame_arrays
from fieldbook.features.request import records as sent_of
from fieldbook.observe.log import records
from fieldbook.serve.plan import current, path_of
from fieldbook.serve.planted import challenger
from fieldbook.serve.servable import Servable

DAY = np.timedelta64(1, "D")


class Traffic(threading.Thread):
    """Asks again and again, and tells by feedback that the champion was wrong.

    Attributes
    ----------
    answered : by which model, and the request id.
    lost : what was not answered.
    """

    def __init__(self, server: Server, requests: list[dict[str, Any]], words: tuple[str, str]) -> None:
        super().__init__(daemon=True)
        self.requests, self.words = requests, words
        self.answered: list[tuple[str, str]] = []
        self.lost: list[Any] = []
        self.ending, self.truth = threading.Event(), dict[int, str]()
        self.client = httpx.Client(base_url=server.client.base_url, timeout=10)

    def run(self) -> None:
        """Ask until it is to end."""
        number = 0
        while not self.ending.is_set():
            sent = self.requests[number % len(self.requests)]
            try:
                answer = self.client.post("/predict", json=sent)
                told = answer.json()
                self.answered.append((told["model_version"], told["request_id"]))
                came = {"request_id": told["request_id"], "outcome": self.outcome(number % len(self.requests))}
                taken = self.client.post("/feedback", json=[came], headers=BEARER)
                if (answer.status_code, taken.status_code) != (200, 202):
                    self.lost.append((answer.status_code, taken.status_code, taken.text))
            except (httpx.HTTPError, KeyError, ValueError) as error:
                self.lost.append(error)
            number += 1

    def outcome(self, number: int) -> str:
        """Return what comes of a request: the opposite of what the champion would decide, four times of five."""
        return self.words[self.truth[number] == self.words[0]] if number % 5 else self.truth[number]

    def wait(self, count: int, seconds: float = 60) -> None:
        """Wait until so many more have been answered."""
        due, end = len(self.answered) + count, time.monotonic() + seconds
        while len(self.answered) < due:
            assert time.monotonic() < end and self.is_alive(), (len(self.answered), self.lost[:3])
            time.sleep(0.02)

    def until(self, version: str, seconds: float = 20) -> None:
        """Wait until ten answers in a row are of a model."""
        end = time.monotonic() + seconds
        while {model for model, _ in self.answered[-10:]} != {version}:
            assert time.monotonic() < end, f"no answers of {version} within {seconds} s"
            time.sleep(0.005)


@pytest.mark.slow
def test_a_challenger_is_tried_promoted_and_taken_back(project: Path, tmp_path: Path) -> None:
    """Canary, outcomes, verdict, promotion and roll-back, all while callers ask; not one request is lost."""
    models, folder = tmp_path / "models", project / "data/settings"
    settings, design = section("rollout", Rollout, folder), section("verdict", Design, folder)
    design = design.model_copy(update={"worthwhile": 0.5})  # a short test: the difference planted here is larger
    own = put(project / "data/champion", models)
    other = challenger(project / "data/champion", models, "flipped")
    sample = pd.read_parquet(project / "data/features/requests.parquet").sample(200, random_state=1)
    ready = Servable(project / "data/champion")
    task = own.framing.task
    due = dict(enumerate(ready.answer(frame_arrays(sample, own.request)).columns["decision"]))
    server = start(project, tmp_path, FIELDBOOK_MODELS=str(models))
    traffic = Traffic(server, sent_of(sample, own.request), (task.negative, task.positive))
    traffic.truth = due
    try:
        traffic.start()
        traffic.wait(150)
        rollout.start(other, models, settings, "canary", 0.5, why="it passed the gate", who="anna@desk")
        traffic.wait(300)
        now = time_of(current(models).when) + 3 * DAY  # the outcomes of these minutes are no longer young
        judged, after = decide(tmp_path / "logs", models, history(models), now, design, settings)
        assert judged.verdicts[other].state == "promote", judged
        traffic.until(other)
        traffic.wait(50)
        assert {model for model, _ in traffic.answered[-20:]} == {other} and after.champion == other
        began = time.monotonic()
        rollout.back(models, "callers complain", who="anna@desk")
        decided = time.monotonic() - began
        traffic.until(own.version)
        traffic.wait(50)
        assert {model for model, _ in traffic.answered[-20:]} == {own.version}
    finally:
        traffic.ending.set()
        traffic.join(20)
        server.stop()
    assert not traffic.lost
    logged = {row["request_id"]: row for row in records(tmp_path / "logs")}
    assert {one for _, one in traffic.answered} == {*logged}
    when = lambda number: [row["time"] for row in logged.values() if row.get("plan") == number]
    since = lambda number: np.datetime64(path_of(models, number).stat().st_mtime_ns // 1_000_000, "ms")
    first = {number: (time_of(min(when(number))) - since(number)) / np.timedelta64(1, "s") for number in (2, 3)}
    print(f"{decided:.3f} s to go back; from the plan to its first answer: {first[2]:.3f} s and {first[3]:.3f} s")
    assert max(first.values()) < 10
    plans = history(models)
    who = [(own.version, "anna@desk"), (other, "rollout"), (own.version, "anna@desk")]
    assert [(plan.champion, plan.who) for plan in plans] == who
    assert plans[1].evidence["verdicts"][other]["evidence"]["requests"][0] >= design.least
    own_arms = [row for row in logged.values() if row.get("arm") in ("champion", "baseline")]
    assert all(plans[row["plan"] - 1].champion == row["model_version"] for row in own_arms)


def commands(project: Path, models: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return what runs a command of a rollout."""
    own = [Path(sys.executable).with_name("fieldbook"), "rollout"]
    place = ["--models", str(models)]
    return lambda *words: subprocess.run([*own, *words, *place], cwd=project, capture_output=True, text=True)


@pytest.mark.slow
def test_commands_say_what_they_did_and_refuse_in_a_line(project: Path, tmp_path: Path) -> None:
    """Start, status, promote, back; what cannot be changes nothing."""
    models, run = tmp_path / "models", commands(project, tmp_path / "models")
    other = challenger(project / "data/champion", models)
    champion = json.loads((project / "data/champion/manifest.json").read_text())["version"]
    for words, said in [
        (("promote", "--why", "it is better"), "nothing is being tried"),
        (("start", "0123456789ab"), "no model 0123456789ab"),
        (("start", other, "--way", "ab"), "say with --by"),
        (("back", "--why", "worse"), "nothing to go back to"),
    ]:
        done = run(*words)
        assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1, done
        assert current(models) is None
    done = run("start", other, "--way", "shadow", "--why", "it passed the gate", "--who", "anna@desk")
    assert done.returncode == 0 and f"plan 1: champion {champion}, shadow of {other}" in done.stdout, done
    done = run("promote", "--why", "it is better")
    assert done.returncode == 0 and f"plan 2: champion {other}" in done.stdout and "@" in current(models).who
    done = run("status", "--logs", str(tmp_path))
    assert done.returncode == 0 and done.stdout.startswith(f"champion   {other}") and "anna@desk" in done.stdout
    assert run("back", "--why", "callers complain").returncode == 0 and current(models).champion == champion


@pytest.mark.parametrize(
    ("words", "changes", "said"),
    [
        (["--way", "interleaving"], {"service": {"steady": {"by": ["carrier"], "margin": 0.1}}}, "steady or explore"),
        (["--way", "interleaving"], {"service": {"explore": {"share": 0.1}}}, "steady or explore"),
        (["--way", "ab", "--by", "carrier"], {"request": {"carrier": {"private": "hash"}}}, "FIELDBOOK_LOG_KEY"),
    ],
)
def test_what_the_service_cannot_follow_is_not_begun(
    project: Path, tmp_path: Path, words: list[str], changes: dict[str, dict[str, Any]], said: str
) -> None:
    """The service's own check is asked before a plan is written, and not only when it is to be followed."""
    told = json.loads((project / "data/champion/manifest.json").read_text())
    for part, names in changes.items():
        for name, value in names.items():
            told[part][name] = (told[part].get(name) or {}) | value
    own = challenger(project / "data/champion", tmp_path, "same", **{part: told[part] for part in changes})
    models = tmp_path / "models"
    other = challenger(tmp_path / own, models, "flipped")
    env = {**os.environ, "FIELDBOOK_CHAMPION": str(tmp_path / own)}
    command = [Path(sys.executable).with_name("fieldbook"), "rollout", "start", other, *words, "--models", str(models)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, env=env)
    assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1, done
    assert current(models) is None


def test_the_registry_follows_and_is_made_right(project: Path, tmp_path: Path) -> None:
    """Aliases are set by the lineage of runs; what a killed command left is right after the next look."""
    from fieldbook.select.store import open_store

    models = tmp_path / "models"
    own, other = put(project / "data/champion", models), challenger(project / "data/champion", models)
    settings = section("rollout", Rollout, project / "data/settings")
    store = open_store(tmp_path)
    import mlflow

    client = mlflow.MlflowClient(store)
    for version in (own.version, other):
        lineage = json.loads((models / version / "manifest.json").read_text())["lineage"]["id"]
        client.create_run("0", tags={"lineage": lineage, "source": f"file:{tmp_path}"})
    rollout.start(other, models, settings, "shadow")
    rollout.promote(models, None, "it is better")  # and the command is killed here
    plans = history(models)
    assert aliases(plans) == {"champion": other, "previous": own.version}
    assert align(tmp_path, plans, own.name) == f"registry: champion {other}, previous {own.version}"
    assert registered(tmp_path / "mlflow.db", own.name) == aliases(plans)
    assert align(tmp_path, plans, own.name) == "registry: aliases follow"
