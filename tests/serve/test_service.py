"""The built Bento over HTTP, as callers meet it."""

import gzip
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Setting
from server import BEARER, Server

from fieldbook.features.features import Features, compute
from fieldbook.features.request import frame_arrays, records
from fieldbook.observe.log import outcomes, read
from fieldbook.scope.problem import Problem
from fieldbook.serve.servable import Servable


def test_samples_get_their_answers(server: Server, manifest: dict[str, Any]) -> None:
    """Each request of the manifest gets the answer it was shipped with."""
    for sample in manifest["samples"]:
        answer = server.client.post("/predict", json=sample["request"]).json()
        assert answer["probability"] == pytest.approx(sample["answer"]["probability"], abs=1e-5)
        assert answer["decision"] == sample["answer"]["decision"]
        assert answer["model_version"] == manifest["version"] and len(answer["request_id"]) == 32
        assert answer["fallback"] is None and answer["also"] and answer["unseen"] == []


def test_many_are_answered_as_one_by_one(server: Server, manifest: dict[str, Any]) -> None:
    """A list is answered by a list, in order, with ids that lead back to the request."""
    requests = [sample["request"] for sample in manifest["samples"]] * 50
    many = server.client.post("/predict", json=requests, headers={"X-Request-ID": "batch-1"})
    one = [server.client.post("/predict", json=request).json()["probability"] for request in requests[:3]]
    assert [answer["probability"] for answer in many.json()[:3]] == one
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
    answers = [answer["probability"] for answer in server.client.post("/predict", json=sent).json()]
    singles = [server.client.post("/predict", json=record).json()["probability"] for record in sent[:20]]
    whole = servable.contract.parse(json.dumps(sent).encode())
    assert answers == [answer["probability"] for answer in servable.predict(whole)] and singles == answers[:20]


def test_every_answer_is_in_the_log(server: Server, manifest: dict[str, Any]) -> None:
    """A row holds inputs, output, lineage id and request id."""
    request = manifest["samples"][0]["request"]
    answer = server.client.post("/predict", json=request, headers={"X-Request-ID": "to-be-found"}).json()
    row = read(server.logs).set_index("request_id").loc["to-be-found"]
    assert row["probability"] == answer["probability"] and row["lineage"] == manifest["lineage"]["id"]
    logged = {name: row[f"inputs.{name}"] for name in request}
    assert {name: None if value != value else value for name, value in logged.items()} == request


def test_what_came_of_it_is_joined(server: Server, manifest: dict[str, Any]) -> None:
    """An outcome finds its prediction when the logs are read; without the token none is taken."""
    name = server.client.post("/predict", json=manifest["samples"][0]["request"]).json()["request_id"]
    told = {"request_id": name, "outcome": manifest["framing"]["positive"]}
    assert server.client.post("/feedback", json=told).status_code == 401
    assert server.client.post("/feedback", json=told, headers=BEARER).json()["taken"] == 1
    joined, unknown = outcomes(server.logs)
    assert joined.set_index("request_id").outcome[name] == told["outcome"] and unknown.empty


def test_unseen_values_are_answered_and_said(server: Server, manifest: dict[str, Any]) -> None:
    """A category that training never saw gets an answer that says so."""
    request = {**manifest["samples"][0]["request"], "destination": "ZZZ"}
    assert server.client.post("/predict", json=request).json()["unseen"] == ["destination"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"wind_speed": -5}, "wind_speed"),
        ({"wind_speed": "fast"}, "wind_speed"),
        ({"origin": "CDG"}, "origin"),
        ({"distance": None}, "distance"),
        ({"scheduled_departure": "tomorrow"}, "scheduled_departure"),
        ({"scheduled_departure": "2013-07-04T17:30+02:00"}, "scheduled_departure"),
        ({"scheduled_departure": 1372959000}, "scheduled_departure"),
        ({"scheduled_departure": "2013-07-04T17:30:00.000Z"}, "scheduled_departure"),
        ({"origin_departures": 3.5}, "origin_departures"),
        ({"origin_departures": "3"}, "origin_departures"),
        ({"origin_departures": 1e300}, "origin_departures"),
        ({"origin_departures": -1.0}, "origin_departures"),
        ({"arr_delay": 30}, "arr_delay"),
    ],
)
def test_bad_fields_are_named(server: Server, manifest: dict[str, Any], change: dict[str, Any], field: str) -> None:
    """What breaks the contract is refused, with the field's name, and never guessed at."""
    told = server.client.post("/predict", json={**manifest["samples"][0]["request"], **change})
    assert told.status_code == 422 and told.json()["detail"][0]["field"] == field


def test_a_whole_number_is_an_integer_however_it_is_written(server: Server, manifest: dict[str, Any]) -> None:
    """172, 172.0 and 1.72e2 get the same answer and the same row in the log, alone and in a list."""
    request = manifest["samples"][0]["request"]
    whole = [name for name, column in manifest["request"].items() if column["type"] == "int"]
    sent = {**request, **{name: None if request[name] is None else float(request[name]) for name in whole}}
    assert any(isinstance(value, float) for name, value in sent.items() if name in whole)
    text = json.dumps({**request, whole[0]: 0}).replace(f'"{whole[0]}": 0', f'"{whole[0]}": {request[whole[0]]:e}')
    bodies = [json.dumps(request), json.dumps(sent), text, json.dumps([request, sent])]
    headers = {"Content-Type": "application/json"}
    answers = [server.client.post("/predict", content=body, headers=headers).json() for body in bodies]
    one, *others = answers[:3]
    assert [{**answer, "request_id": one["request_id"]} for answer in others] == [one, one]
    assert answers[3][0]["probability"] == answers[3][1]["probability"] == one["probability"]
    lines = [line for path in server.logs.glob("predictions-*.jsonl") for line in path.read_text().splitlines()]
    logged = {row["request_id"]: json.dumps(row["inputs"]) for row in map(json.loads, lines)}
    ids = [answer["request_id"] for answer in [*answers[:3], *answers[3]]]
    assert len({logged[name] for name in ids}) == 1, "the log has them as integers"


def test_a_time_is_taken_with_seconds_and_refused_with_a_zone(server: Server, manifest: dict[str, Any]) -> None:
    """Seconds and fractions are dropped; which local time an instant is, nobody here can know, and so it is told."""
    request = manifest["samples"][0]["request"]
    name = next(name for name, column in manifest["request"].items() if column["type"] == "datetime")
    ask = lambda ending: server.client.post("/predict", json={**request, name: request[name] + ending})
    assert len({ask(ending).json()["probability"] for ending in ("", ":00", ":00.000", ":59.9")}) == 1
    for ending in ("Z", ":00.000Z", ":00+00:00", "-05:00", ":60"):
        fault = ask(ending).json()["detail"][0]
        assert fault["field"] == name and "without a zone, such as 2013-07-04T17:30" in fault["problem"], ending


def test_a_packed_body_is_refused_in_a_line(server: Server, manifest: dict[str, Any]) -> None:
    """A small body must not become a large one here: 415, on every route that takes one."""
    body = gzip.compress(json.dumps(manifest["samples"][0]["request"]).encode())
    for path, headers in (("/predict", {}), ("/feedback", BEARER)):
        answer = server.client.post(path, content=body, headers={**headers, "Content-Encoding": "gzip"})
        assert answer.status_code == 415 and "content-encoding" in answer.json()["error"], path
        assert answer.headers["accept-encoding"] == "identity"


def test_an_outcome_belongs_to_the_latest_prediction_of_its_id(server: Server, manifest: dict[str, Any]) -> None:
    """An id used twice, an outcome after each: two outcomes, each where it belongs."""
    framing, request = manifest["framing"], manifest["samples"][0]["request"]
    for outcome in (framing["positive"], framing["negative"]):
        server.client.post("/predict", json=request, headers={"X-Request-ID": "daily"})
        server.client.post("/feedback", json={"request_id": "daily", "outcome": outcome}, headers=BEARER)
        time.sleep(0.005)  # the log tells times to the millisecond
    joined, _ = outcomes(server.logs)
    daily = joined[joined.request_id == "daily"]
    assert daily.outcome.tolist() == [framing["positive"], framing["negative"]] and daily.outcomes.tolist() == [1, 1]
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
        server.client.post("/predict", json={"origin": 1})
    after, more = noted()
    assert more == times + 20 and 20e-6 < after - before < 2


def test_a_forgotten_field_is_named(server: Server, manifest: dict[str, Any]) -> None:
    """An old client that does not send a field hears which."""
    request = {name: value for name, value in manifest["samples"][0]["request"].items() if name != "pressure"}
    told = server.client.post("/predict", json=[request]).json()
    assert told["detail"] == [
        {"row": 0, "field": "pressure", "problem": "is required; send null where it is not known"}
    ]


def test_operations_endpoints(server: Server, manifest: dict[str, Any]) -> None:
    """Liveness, readiness, the model's manifest, and metrics that count what was asked."""
    assert server.client.get("/livez").status_code == server.client.get("/readyz").status_code == 200
    assert server.client.get("/model").json() == manifest

    def counted() -> dict[str, float]:
        lines = server.client.get("/metrics").text.splitlines()
        return {
            line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line.startswith("fieldbook_")
        }

    before, sample = counted(), manifest["samples"][-1]
    decision = server.client.post("/predict", json=sample["request"]).json()["decision"]
    server.client.post("/predict", json={"origin": 1})
    after, name = counted(), f'fieldbook_predictions_total{{decision="{decision}"}}'
    assert after[name] == before.get(name, 0) + 1
    assert (
        after['fieldbook_refused_requests_total{field="origin"}']
        == before.get('fieldbook_refused_requests_total{field="origin"}', 0) + 1
    )
    assert any(line.startswith("fieldbook_model_info") and manifest["version"] in line for line in after)


def test_the_api_page_loads_nothing_from_elsewhere(server: Server, manifest: dict[str, Any]) -> None:
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
