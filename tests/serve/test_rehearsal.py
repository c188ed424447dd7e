"""Nothing is called built that does not answer: what a Bento's code and champion must get through before it is one."""

import json
import shutil
from pathlib import Path

import pytest

from fieldbook import FieldbookError
from fieldbook.package.bento import rehearse
from fieldbook.serve.app import Fieldbook
from fieldbook.serve.rehearsal import in_process
from fieldbook.serve.small import served, small_champion

ROOT = Path(__file__).resolve().parents[2]
SERVICE, REHEARSAL = Fieldbook.inner.__module__, in_process.__module__


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a folder like a Bento's `src`, with the service's code and a small champion."""
    (tmp_path / "data/champion").mkdir(parents=True)
    small_champion(tmp_path / "data/champion")
    shutil.copytree(ROOT / "src/fieldbook", tmp_path / "src/fieldbook", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_what_answers_its_samples_passes(source: Path) -> None:
    """The service's own code, without the packages that a container does not have."""
    rehearse(source, SERVICE, REHEARSAL)


def test_a_module_that_was_forgotten_is_named(source: Path) -> None:
    """As where bentofile.yaml does not list it."""
    path = source / "src" / Path(*SERVICE.split(".")).with_suffix(".py")
    text = path.read_text().replace("import atexit\n", "import atexit\nimport fieldbook.forgotten\n", 1)
    path.write_text(text)
    with pytest.raises(FieldbookError, match="does not answer: .*No module named 'fieldbook.forgotten'$"):
        rehearse(source, SERVICE, REHEARSAL)


def test_another_answer_is_told_in_a_line(source: Path) -> None:
    """The sample, the field, what it must be and what it is."""
    path = source / "data/champion/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["samples"][0]["answer"]["probability"] = 0.8
    path.write_text(json.dumps(manifest))
    with pytest.raises(FieldbookError) as error:
        rehearse(source, SERVICE, REHEARSAL)
    assert "must get probability 0.8 and gets 0.9" in str(error.value) and "\n" not in str(error.value)


ODD = ["weight (kg)", "a.b", "2ndFlr", "__x", "__dict__", "self", "class", "größe", "f0", "Order Date", "education-num"]
ODD += ["request_id", "%", "", "None", "match", "records", "Ａ"]


def test_fields_of_any_name_are_answered(source: Path) -> None:
    """What is no name in Python, or one that means something there, is one in a request, a log and a description."""
    path = source / "data/champion/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["problem"] = {"_target_": "fieldbook.problems.table.Tabular", "source": "", "labels": {}}
    manifest["request"] = {"wind": {"type": "float"}} | {name: {"type": "str", "nullable": True} for name in ODD}
    manifest["seen"] = {name: {"words": ["a"], "kinds": 1} for name in ODD}
    manifest["features"] = {"derive": {}, "numeric": ["wind"], "categorical": {name: ["a", "b"] for name in ODD}}
    answers = zip([31.5, 1.0], manifest["samples"][0]["answer"] and [manifest["samples"][i]["answer"] for i in (0, 1)])
    manifest["samples"] = [
        {"request": {"wind": wind, **dict.fromkeys(ODD, "a")}, "answer": is_} for wind, is_ in answers
    ]
    path.write_text(json.dumps(manifest))
    rehearse(source, SERVICE, REHEARSAL)
    with served(source / "data/champion", FIELDBOOK_TOKEN="a") as (client, _, logs):
        answer = client.post("/predict", json=manifest["samples"][0]["request"] | {"self": "z", "class": None})
        assert answer.status_code == 200 and answer.json()["unseen"] == ["self", "class"]
        described = client.get("/docs.json").json()["components"]["schemas"]["Request"]
        assert described["required"] == ["wind", *ODD] and client.get("/model").json()["request"].keys() >= set(ODD)
        (line,) = [line for file in logs.glob("predictions-*.jsonl") for line in file.read_text().splitlines()]
        assert json.loads(line)["inputs"].keys() == {"wind", *ODD}
        fault = client.post("/predict", json={}).json()["detail"]
        assert [one["field"] for one in fault][:3] == ["wind", "weight (kg)", "a.b"]
