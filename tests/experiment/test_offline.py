"""What a policy would have cost, from the log of another."""

import json
from pathlib import Path

import numpy as np
import pytest

from fieldbook.experiment.relive import main, relive
from fieldbook.serve.small import served, small_champion


def test_a_real_log_is_relived(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The service draws a part of its decisions; another model is judged by it, and the interval holds the truth."""
    champion, folder = small_champion(tmp_path, explore={"share": 0.3}), tmp_path / "logs"
    rng = np.random.default_rng(11)
    happened: list[tuple[bool, bool]] = []  # whether it was late, and whether the champion would have erred
    for day in range(1, 9):
        env = {"FIELDBOOK_TOKEN": "secret", "FIELDBOOK_REPLAY": "1"}
        with served(champion, **env) as (client, front, logs):
            front.app.explorer.generator = np.random.default_rng(day)
            headers = {"x-time": f"2013-04-0{day}T08:00:00Z", "x-request-id": f"day{day}"}
            wind = rng.uniform(0, 60, size=100).round(1)
            asked = [{"origin": "EWR", "wind": one} for one in wind.tolist()]
            answers = client.post("/predict", json=asked, headers=headers).json()
            late = rng.uniform(size=100) < np.where(wind >= 30, 0.9, 0.1)
            happened += zip(late, late != (wind >= 30))
            words = np.where(late, "late", "on time").tolist()
            told = [{"request_id": row["request_id"], "outcome": word} for row, word in zip(answers, words)]
            assert client.post("/feedback", json=told, headers={"Authorization": "Bearer secret"}).status_code == 202
        folder.mkdir(exist_ok=True)
        for path in logs.glob("*.jsonl"):
            path.rename(folder / path.name)
    other = tmp_path / "other"
    other.mkdir()
    small_champion(other)
    for name in ("model.onnx", "fallback.onnx"):  # this one always says 0.5, and so acts
        (other / name).write_bytes((tmp_path / "fallback.onnx").read_bytes())
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["lineage"]["graph"] = manifest["fallback"]["graph"]
    (other / "manifest.json").write_text(json.dumps(manifest))
    found = main(folder, other, champion, tmp_path)
    seen = relive(folder, other, champion, tmp_path)
    assert (seen.candidate[:, 1] == 1).all() and np.isfinite(seen.logged.loss).all()
    late, erred = np.array(happened).T
    truth = 1000 * ((~late).mean() - erred.mean())  # every mistake costs 1
    for name, one in found.items():
        assert one.low < truth < one.high, name
    assert "against the champion" in capsys.readouterr().out
