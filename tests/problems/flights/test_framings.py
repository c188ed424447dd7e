"""The same problem asked in other words: one word in conf/, and everything follows, to the answer that is served."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from scratch import Project
from server import BEARER, start

pytestmark = pytest.mark.slow
ANSWERS: dict[str, tuple[str, set[str]]] = {  # the metric that only this kind has, and what a caller gets
    "punctuality": ("accuracy", {"probabilities", "decision"}),
    "minutes": ("mae", {"value", "unit"}),
    "trouble": ("roc_auc", {"probabilities", "decision"}),
}


@pytest.mark.parametrize("framing", ANSWERS)
def test_another_framing_is_one_word(scratch: Project, tmp_path: Path, framing: str) -> None:
    scratch.set("scope.framing", framing)
    scratch.do("dvc", "repro", "bento")
    metric, fields = ANSWERS[framing]
    board = scratch.read("data/selection/leaderboard.json")
    assert all(row[metric]["low"] <= row[metric]["value"] <= row[metric]["high"] for row in board["models"])
    manifest = scratch.read("data/champion/manifest.json")
    assert manifest["framing"]["name"] == framing
    server = start(scratch.path, tmp_path)
    try:
        for sample in manifest["samples"]:
            answer = server.client.post("/predict", json=sample["request"]).json()
            always = {"also", "priority", "fallback", "model_version", "request_id", "unseen", "notes"}
            assert set(answer) == fields | always, answer
            assert {name: answer[name] for name in fields} == nearly(sample["answer"])
        answers = server.client.post("/predict", json=[one["request"] for one in manifest["samples"]] * 50).json()
        outcomes = [{"request_id": one["request_id"], "outcome": outcome(one)} for one in answers]
        assert server.client.post("/feedback", json=outcomes, headers=BEARER).status_code == 202
        counted = server.client.get("/metrics").text
        assert ("fieldbook_value_count 153.0" if framing == "minutes" else "fieldbook_predictions_total{") in counted
    finally:
        server.stop(signal.SIGKILL)
    ripe = f"{datetime.now(UTC) + timedelta(days=9):%Y-%m-%dT%H:%M}"  # so soon after the answer no outcome counts
    scratch.do("python", "-m", "fieldbook", "monitor", server.logs, "--to", tmp_path / "found", "--now", ripe)
    found = json.loads((tmp_path / "found/report.json").read_text())
    assert found["log"]["rows"] == 153 and found["log"]["outcomes"] == 150
    whole = next(one for one in found["windows"] if one["window"] == "all")
    assert (
        whole["expects"]["loss"]["low"] <= whole["expects"]["loss"]["value"] and whole["lost"]["whole"]["rows"] == 150
    )


def outcome(answer: dict[str, Any]) -> Any:
    """Return what may be told to have happened: what was decided, or the value."""
    return answer["decision"] if "decision" in answer else answer["value"]


def nearly(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the answer with numbers that match up to float32."""
    close = lambda value: pytest.approx(value, abs=1e-5, rel=1e-5)
    return {
        name: {key: close(share) for key, share in value.items()}
        if isinstance(value, dict)
        else close(value)
        if isinstance(value, float)
        else value
        for name, value in answer.items()
    }
