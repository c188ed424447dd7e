"""The service speaks the owner's words: of outcomes, of times, and of what training saw."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from fieldbook.observe.log import outcomes, read
from fieldbook.serve.small import served, small_champion

BEARER = {"Authorization": "Bearer open sesame"}
GOOD = {"origin": "EWR", "wind": 31.5}


def champion(folder: Path, change: dict[str, Any], **service: Any) -> Path:
    """Write a small champion whose manifest says something else, too."""
    small_champion(folder, **service)
    told = json.loads((folder / "manifest.json").read_text())
    told["request"] |= change
    for sample in told["samples"]:
        sample["request"] |= dict.fromkeys(change, "2024-05-01T12:00")
    (folder / "manifest.json").write_text(json.dumps(told))
    return folder


@pytest.fixture
def owners(tmp_path: Path) -> Iterator[tuple[TestClient, Path]]:
    """Give a client of a service whose owner says Yes, 1 and True, and has a time in UTC; and its logs."""
    spellings = {"late": ["Yes", "1", "True"], "on time": ["No", "0", "False"]}
    times = {"asked_at": {"type": "datetime", "utc": True, "why": "when it was asked"}, "due": {"type": "datetime"}}
    (tmp_path / "champion").mkdir()
    folder = champion(tmp_path / "champion", times, spellings=spellings)
    with served(folder, FIELDBOOK_TOKEN="open sesame") as (client, _, logs):
        yield client, logs


def test_outcomes_are_taken_as_the_file_has_them(owners: tuple[TestClient, Path]) -> None:
    """Yes, 1, True, 1 and true are the framing's word; any other word is refused with those that there are."""
    client, logs = owners
    sent = ["late", "Yes", "1", "True", 1, 1.0, True, "on time", "No", 0, False]
    now = {"asked_at": "2024-05-01T12:00", "due": "2024-05-01T12:00"}
    ids = [client.post("/predict", json=GOOD | now).json()["request_id"] for _ in sent]
    rows = [{"request_id": one, "outcome": word} for one, word in zip(ids, sent)]
    assert client.post("/feedback", json=rows, headers=BEARER).json()["taken"] == len(sent)
    joined = outcomes(logs)[0].set_index("request_id").outcome
    assert [joined[one] for one in ids] == ["late"] * 7 + ["on time"] * 4
    for wrong in ("perhaps", "YES", 2, None, {"a": 1}):
        answer = client.post("/feedback", json=[rows[0], {"request_id": "a", "outcome": wrong}], headers=BEARER)
        fault = answer.json()["detail"][0]
        assert answer.status_code == 422 and fault["row"] == 1 and fault["field"] == "outcome"
        assert fault["problem"].endswith("is not 'on time' (or No, 0, False) or 'late' (or Yes, 1, True)")
    assert client.post("/feedback", json=rows[0] | {"odd": 1}, headers=BEARER).status_code == 422


def test_the_page_has_words_and_meaning(owners: tuple[TestClient, Path]) -> None:
    """Title and target, each field's meaning, unit, example and range, and the words of an outcome."""
    client, _ = owners
    told = client.get("/docs.json").json()
    assert told["info"]["title"] == "wind: late" and "<title>wind: late</title>" in client.get("/").text
    fields = told["components"]["schemas"]["Request"]["properties"]
    assert fields["wind"]["description"] == "miles per hour; seen in training: 0 to 87.5; may be null"
    assert fields["wind"]["examples"] == [31.5] and fields["origin"]["description"] == "seen in training: EWR"
    assert fields["asked_at"]["description"] == "when it was asked; in UTC, or with an offset"
    outcome = told["components"]["schemas"]["Outcome"]["properties"]["outcome"]
    words = ["on time", "No", "0", 0, "False", False, "late", "Yes", "1", 1, "True", True]
    assert json.dumps(outcome["enum"]) == json.dumps(words)
    assert "'late' (or Yes, 1, True)" in outcome["description"]
    assert "'late' (or Yes, 1, True)" in told["paths"]["/feedback"]["post"]["description"]


def test_what_training_never_saw_is_noted(owners: tuple[TestClient, Path]) -> None:
    """An answer and its row in the log say which number is beyond all that training saw; metrics count it."""
    client, logs = owners
    now = {"asked_at": "2024-05-01T12:00", "due": "2024-05-01T12:00"}
    rows = [GOOD | now, GOOD | now | {"wind": 1200}, GOOD | now | {"wind": None}, GOOD | now | {"wind": 87.5}]
    answers = client.post("/predict", json=rows).json()
    assert [len(answer["notes"]) for answer in answers] == [0, 1, 0, 0]
    assert answers[1]["notes"] == ["wind: 1,200 is above all that training saw (0 to 87.5)"]
    assert [len(notes) for notes in read(logs).notes] == [0, 1, 0, 0]


def test_a_time_is_the_same_instant_however_it_is_written(owners: tuple[TestClient, Path]) -> None:
    """Where a field is in UTC an offset is taken into account; where it is local it is refused, in words."""
    client, logs = owners
    same = [
        "2024-05-01T12:00",
        "2024-05-01T12:00:00.000Z",
        "2024-05-01T12:00:00+00:00",
        "2024-05-01T14:00:00.123456+02:00",
    ]
    same += ["2024-05-01 12:00:59", "2024-05-01T07:00-0500", "2024-05-01 12:00:00Z"]
    ask = lambda **more: client.post("/predict", json=[GOOD | {"asked_at": same[0], "due": same[0]} | more])
    assert [ask(asked_at=sent).status_code for sent in same] == [200] * len(same)
    assert {text[:16].replace(" ", "T") for text in read(logs)["inputs.asked_at"]} == {same[0]}
    for wrong in (same[1], same[3], "1/5/2024 12:00", ""):
        fault = ask(due=wrong).json()["detail"][0]
        assert fault["field"] == "due" and "without a zone, such as 2013-07-04T17:30" in fault["problem"]
    assert "with its offset" in ask(asked_at="1/5/2024").json()["detail"][0]["problem"]
    assert ask(asked_at="2024-02-30").json()["detail"][0]["problem"] == "there is no such day"
