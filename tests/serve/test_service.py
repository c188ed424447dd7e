"""The built Bento over HTTP, as callers meet it, whatever the problem: fields and answers are those of the manifest."""

import gzip
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from server import BEARER, Server

from fieldbook.features.features import Features, compute
from fieldbook.features.request import frame_arrays, records
from fieldbook.observe.log import outcomes, read
from fieldbook.scope.framing import Framing
from fieldbook.scope.problem import Problem
from fieldbook.serve.servable import Servable

Setting = Callable[[str, Any], Any]  # what the fixture `setting` gives

Manifest = dict[str, Any]


def plain(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without the request's id, by which it differs from others."""
    return {name: value for name, value in answer.items() if name != "request_id"}


def happened(task: Framing) -> list[Any]:
    """Return two things that may come of a prediction."""
    if task.value:
        return [1.0, 2.0]
    return [[word] for word in task.words[:2]] if task.several else task.words[:2]


def of_type(manifest: Manifest, kind: str) -> list[str]:
    """Return the fields of a request that are of a type."""
    return [name for name, column in manifest["request"].items() if column["type"] == kind]


def test_samples_get_their_answers(server: Server, manifest: Manifest) -> None:
    """Each request of the manifest gets the answer it was shipped with."""
    for sample in manifest["samples"]:
        answer = server.client.post("/predict", json=sample["request"]).json()
        for name, expected in sample["answer"].items():
            assert answer[name] == (pytest.approx(expected, abs=1e-5) if isinstance(expected, float) else expected)
        assert answer["model_version"] == manifest["version"] and len(answer["request_id"]) == 32
        assert answer["fallback"] is None and answer["unseen"] == []
        assert ("also" in answer) == bool(manifest["also"])


def test_many_are_answered_as_one_by_one(server: Server, manifest: Manifest) -> None:
    """A list is answered by a list, in order, with ids that lead back to the request."""
    requests = [sample["request"] for sample in manifest["samples"]] * 50
    many = server.client.post("/predict", json=requests, headers={"X-Request-ID": "batch-1"})
    one = [plain(server.client.post("/predict", json=request).json()) for request in requests[:3]]
    assert [plain(answer) for answer in many.json()[:3]] == one
    assert [answer["request_id"] for answer in many.json()] == [f"batch-1/{row}" for row in range(len(requests))]
    assert many.headers["x-request-id"] == "batch-1"


def test_training_batch_and_online_agree(server: Server, project: Path, setting: Setting, problem: Problem) -> None:
    """The skew test: the feature table, a batch and single requests give the same features and the same answers."""
    table = pd.read_parquet(project / "data/features/features.parquet").sample(200, random_state=3)
    requests = pd.read_parquet(project / "data/features/requests.parquet").loc[table.index]
    features = setting("features", Features)
    servable, sent = Servable(project / "data/champion"), records(requests, features.request)
    batch = compute(problem, frame_arrays(requests, features.request), features.derive)
    parsed = [servable.contract.parse(json.dumps(record).encode()) for record in sent]
    online = [servable.features(request.arrays) for request in parsed]
    for name in features.names:
        trained = table[name].to_numpy(batch[name].dtype)
        single = np.array([columns[name][0] for columns in online], dtype=trained.dtype)
        assert np.array_equal(trained, batch[name], equal_nan=trained.dtype.kind == "f"), (
            f"{name}: training and batch differ"
        )
        assert np.array_equal(trained, single, equal_nan=trained.dtype.kind == "f"), (
            f"{name}: training and online differ"
        )
    answers = [plain(answer) for answer in server.client.post("/predict", json=sent).json()]
    singles = [plain(server.client.post("/predict", json=record).json()) for record in sent[:20]]
    whole = servable.contract.parse(json.dumps(sent).encode())
    assert answers == [plain(answer) for answer in servable.predict(whole)] and singles == answers[:20]


def test_every_answer_is_in_the_log(server: Server, manifest: Manifest) -> None:
    """A row holds inputs, output, lineage id and request id."""
    request = manifest["samples"][0]["request"]
    answer = server.client.post("/predict", json=request, headers={"X-Request-ID": "to-be-found"}).json()
    row = read(server.logs).set_index("request_id").loc["to-be-found"]
    figures = [name for name, value in answer.items() if isinstance(value, float)]
    assert row[figures].to_dict() == {name: answer[name] for name in figures}
    assert row["lineage"] == manifest["lineage"]["id"]
    logged = {name: row[f"inputs.{name}"] for name in request}
    assert {name: None if value != value else value for name, value in logged.items()} == request


def test_what_came_of_it_is_joined(server: Server, manifest: Manifest, task: Framing) -> None:
    """An outcome finds its prediction when the logs are read; without the token none is taken."""
    name = server.client.post("/predict", json=manifest["samples"][0]["request"]).json()["request_id"]
    told = {"request_id": name, "outcome": happened(task)[0]}
    assert server.client.post("/feedback", json=told).status_code == 401
    assert server.client.post("/feedback", json=told, headers=BEARER).json()["taken"] == 1
    joined, unknown = outcomes(server.logs)
    assert joined.set_index("request_id").outcome[name] == told["outcome"] and unknown.empty


def test_unseen_values_are_answered_and_said(server: Server, manifest: Manifest) -> None:
    """A category that training never saw gets an answer that says so, if the contract allows it at all."""
    sample, known = manifest["samples"][0]["request"], manifest["features"]["categorical"]
    for name in of_type(manifest, "str"):
        column = manifest["request"][name]
        answer = server.client.post("/predict", json={**sample, name: "ZZZ"[: column["max_length"]]})
        assert answer.status_code == (422 if column["one_of"] else 200)
        assert column["one_of"] or name not in known or name in answer.json()["unseen"]


OF_A_TYPE: dict[str, list[Any]] = {
    "float": ["fast", "3", True],
    "int": [3.5, "3", 1e300],
    "str": [1, True, "x" * 10_000],
    "datetime": ["tomorrow", 1372959000, "2013-02-30", "2013-07-04T17:30+25:00"],
}
ZONED = ["2013-07-04T17:30+02:00", "2013-07-04T17:30:00.000Z"]  # no local time


def wrong(column: dict[str, Any]) -> Iterator[Any]:
    """Yield values that a field must not have."""
    yield from OF_A_TYPE[column["type"]]
    yield from ZONED if column["type"] == "datetime" and not column["utc"] else ()
    yield [1]
    if not column["nullable"]:
        yield None
    if column["at_least"] is not None:
        yield column["at_least"] - 1
    if column["at_most"] is not None:
        yield column["at_most"] + 1
    if column["one_of"]:
        yield "".join(column["one_of"])[:60]


def test_bad_fields_are_named(server: Server, manifest: Manifest) -> None:
    """What breaks the contract is refused, with the field's name, and never guessed at."""
    sample = manifest["samples"][0]["request"]
    cases = [(name, value) for name, column in manifest["request"].items() for value in wrong(column)]
    assert len(cases) > 3 * len(manifest["request"])
    for name, value in [*cases, ("no_such_field", 30)]:
        answer = server.client.post("/predict", json={**sample, name: value})
        assert answer.status_code == 422, (name, value, answer.text)
        assert answer.json()["detail"][0]["field"] == name, (name, value)


def test_a_whole_number_is_an_integer_however_it_is_written(server: Server, manifest: Manifest) -> None:
    """172, 172.0 and 1.72e2 get the same answer and the same row in the log, alone and in a list."""
    request = manifest["samples"][0]["request"]
    whole = of_type(manifest, "int")
    if not whole:
        pytest.skip("no field of this problem is a whole number")
    sent = {**request, **{name: None if request[name] is None else float(request[name]) for name in whole}}
    assert any(isinstance(value, float) for name, value in sent.items() if name in whole)
    text = json.dumps({**request, whole[0]: 0}).replace(f'"{whole[0]}": 0', f'"{whole[0]}": {request[whole[0]]:e}')
    bodies = [json.dumps(request), json.dumps(sent), text, json.dumps([request, sent])]
    headers = {"Content-Type": "application/json"}
    answers = [server.client.post("/predict", content=body, headers=headers).json() for body in bodies]
    one = plain(answers[0])
    assert [plain(answer) for answer in [*answers[1:3], *answers[3]]] == [one] * 4
    lines = [line for path in server.logs.glob("predictions-*.jsonl") for line in path.read_text().splitlines()]
    logged = {row["request_id"]: json.dumps(row["inputs"]) for row in map(json.loads, lines)}
    ids = [answer["request_id"] for answer in [*answers[:3], *answers[3]]]
    assert len({logged[name] for name in ids}) == 1, "the log has them as integers"


def test_a_time_is_taken_as_programs_write_it_and_never_guessed_at(server: Server, manifest: Manifest) -> None:
    """Seconds are dropped, a blank is a T; an offset is taken in UTC, and refused where the time is local, in words."""
    request = manifest["samples"][0]["request"]
    if not of_type(manifest, "datetime"):
        pytest.skip("no field of this problem is a time")
    name = of_type(manifest, "datetime")[0]
    ask = lambda sent: server.client.post("/predict", json={**request, name: sent}).json()
    day, clock = request[name].split("T")
    same = [f"{day}T{clock}{more}" for more in ("", ":00", ":00.000", ":59.9", ":00.123456")] + [f"{day} {clock}"]
    zoned = [f"{day}T{clock}{more}" for more in ("Z", ":00.000Z", ":00+00:00")]
    utc = manifest["request"][name]["utc"]
    answers = [plain(ask(sent)) for sent in (same + zoned if utc else same)]
    assert answers == [answers[0]] * len(answers) and "model_version" in answers[0]
    assert "model_version" in ask(day), "a date alone is its beginning"
    for sent in [f"{day}T{clock}:60", "tomorrow", *(() if utc else (*zoned, f"{day}T{clock}-05:00"))]:
        fault = ask(sent)["detail"][0]
        assert fault["field"] == name and "such as 2013-07-04T17:30" in fault["problem"], sent
        assert "[0-9]" not in fault["problem"], "a pattern is no words"


def test_a_packed_body_is_refused_in_a_line(server: Server, manifest: Manifest) -> None:
    """A small body must not become a large one here: 415, on every route that takes one."""
    body = gzip.compress(json.dumps(manifest["samples"][0]["request"]).encode())
    for path, headers in (("/predict", {}), ("/feedback", BEARER)):
        answer = server.client.post(path, content=body, headers={**headers, "Content-Encoding": "gzip"})
        assert answer.status_code == 415 and "content-encoding" in answer.json()["error"], path
        assert answer.headers["accept-encoding"] == "identity"


def test_an_outcome_belongs_to_the_latest_prediction_of_its_id(
    server: Server, manifest: Manifest, task: Framing
) -> None:
    """An id used twice, an outcome after each: two outcomes, each where it belongs."""
    request = manifest["samples"][0]["request"]
    for outcome in happened(task):
        server.client.post("/predict", json=request, headers={"X-Request-ID": "daily"})
        server.client.post("/feedback", json={"request_id": "daily", "outcome": outcome}, headers=BEARER)
        time.sleep(0.005)  # the log tells times to the millisecond
    joined, _ = outcomes(server.logs)
    daily = joined[joined.request_id == "daily"]
    assert daily.outcome.tolist() == happened(task) and daily.outcomes.tolist() == [1, 1]
    described = server.client.get("/docs.json").json()["paths"]["/predict"]["post"]
    assert any("latest prediction" in header["description"] for header in described["parameters"])


def test_what_is_refused_took_its_time_too(server: Server) -> None:
    """The histogram of seconds knows how long a refusal took: each more than nothing."""

    def noted() -> tuple[float, float]:
        text = server.client.get("/metrics").text
        found = {kind: re.findall(rf'_seconds_{kind}{{outcome="refused"}} (\S+)', text) for kind in ("sum", "count")}
        return float(found["sum"][0]), float(found["count"][0])

    before, times = noted()
    for _ in range(20):
        server.client.post("/predict", json={})
    after, more = noted()
    assert more == times + 20 and 20e-6 < after - before < 2


def test_a_forgotten_field_is_named(server: Server, manifest: Manifest) -> None:
    """An old client that does not send a field hears which."""
    request = dict(manifest["samples"][0]["request"])
    name, _ = request.popitem()
    answer = server.client.post("/predict", json=[request]).json()
    assert answer["detail"] == [{"row": 0, "field": name, "problem": "is required; send null where it is not known"}]


def test_operations_endpoints(server: Server, manifest: Manifest) -> None:
    """Liveness, readiness, the model's manifest, and metrics that count what was asked."""
    assert server.client.get("/livez").status_code == server.client.get("/readyz").status_code == 200
    assert server.client.get("/model").json() == manifest

    def counted() -> dict[str, float]:
        lines = server.client.get("/metrics").text.splitlines()
        return {
            line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line.startswith("fieldbook_")
        }

    before, request = counted(), manifest["samples"][-1]["request"]
    decision, field = server.client.post("/predict", json=request).json().get("decision"), next(iter(request))
    server.client.post("/predict", json={**request, field: []})
    after = counted()
    rise = lambda name: after[f"fieldbook_{name}"] - before.get(f"fieldbook_{name}", 0)
    assert rise("rows_total") == 1 and rise(f'refused_requests_total{{field="{field}"}}') == 1
    if isinstance(decision, str):
        assert rise(f'predictions_total{{decision="{decision}"}}') == 1
    assert any(line.startswith("fieldbook_model_info") and manifest["version"] in line for line in after)


def test_the_api_page_loads_nothing_from_elsewhere(server: Server, manifest: Manifest) -> None:
    """The page and what it loads come from this server; the description has the samples in it."""
    page = server.client.get("/").text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert loaded and all(place.startswith(("./", "data:")) for place in loaded)
    for place in loaded:
        assert place.startswith("data:") or server.client.get(place.removeprefix(".")).status_code == 200, place
    described = server.client.get("/docs.json").json()["paths"]["/predict"]["post"]["requestBody"]["content"][
        "application/json"
    ]
    assert described["examples"]["sample 0"]["value"] == manifest["samples"][0]["request"]
