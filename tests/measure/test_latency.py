"""Latency is judged on the whole request, as the champion answers it; the graph alone is timed beside it."""

from pathlib import Path

import pytest

from fieldbook import FieldbookError
from fieldbook.features.features import read_features
from fieldbook.measure.latency import Measure, bodies, conclude, timings, whole
from fieldbook.model.parity import evenly
from fieldbook.scope.framing import Framing
from fieldbook.select.gate import LATER


@pytest.fixture(autouse=True)
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand where the command does."""
    monkeypatch.chdir(project)


def test_a_limit_on_latency_is_judged_on_the_whole_request(task: Framing, manifest: dict) -> None:
    """Reading, features and log take longer than the graph, which is timed beside them."""
    name, champion = manifest["model"], Path("data/champion")
    times = timings(champion, {name: champion / "model.onnx"}, Measure(rows=20, repeats=5), 0.95)[name]
    assert times["rows"] == 100
    for percentile in (50, 90, 99):
        request, graph = (times[f"{of}_p{percentile}_ms"] for of in ("latency", "graph"))
        assert request["low"] <= request["value"] <= request["high"]
        assert 0 < graph["value"] < request["value"]
    board = {"champion": name, "models": [{"model": name, "passed": True}]}
    judged = conclude(board, task.limits, {name: times})["models"][name]
    assert [record["metric"] for record in judged] == [x.metric for x in task.limits if x.metric.startswith(LATER)]


def test_what_is_not_answered_is_not_timed(manifest: dict) -> None:
    """A refusal is quick, and says nothing of how long an answer takes."""
    champion, (one, *_) = Path("data/champion"), bodies(evenly(read_features("validation")[0], 10))
    with pytest.raises(FieldbookError, match="does not answer: 422") as error:
        whole(champion, champion / "model.onnx", [one, b"{}"], 5, 0.95)
    assert "\n" not in str(error.value)
