"""An adopted table with a time, played: by HTTP and in process, with ticks, and once more from its own log."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scratch import Project


def decided(folder: Path) -> dict[str, Any]:
    """Return what was decided of each request of a log, by request id."""
    lines = [line for path in folder.glob("predictions-*.jsonl") for line in path.read_text().splitlines()]
    tables = [pd.read_parquet(path) for path in folder.glob("predictions-*.parquet")]
    rows = [*map(json.loads, lines), *(row for table in tables for row in table.to_dict("records"))]
    return {row["request_id"]: (row["time"][:16], row["decision"]) for row in rows}


@pytest.mark.slow
def test_an_adopted_table_is_played_with_ticks_and_its_log_is_played_again(project: Project) -> None:
    """Every row behind what the model knew is asked once, its outcome is told, and each night there is a tick."""
    project.set("trigger", {"days": None, "alerts": []})  # learning anew is tried elsewhere
    project.do("dvc", "repro", "-q", "settings")
    table = pd.read_parquet(project.path / "data/examples/examples.parquet")
    begin = str(table["as_of"].max() - pd.Timedelta(days=10))[:10]
    wanted = table[table["as_of"] >= begin]
    said = project.do("fieldbook", "replay", f"--from={begin}", "--http=6", "--tick").stdout
    played = project.path / "logs/replay"
    assert f"{len(wanted)} requests played" in said and " failed: " not in said, said
    assert len(decided(played)) == len(wanted) > 200
    weeks = json.loads((played / "weeks.json").read_text())
    assert sum(week["known"] for week in weeks["weeks"]) == len(wanted) == sum(week["rows"] for week in weeks["weeks"])
    ticks = [json.loads(line) for line in (played / "ticks/diary.jsonl").read_text().splitlines()]
    looks = [tick["time"] for tick in ticks if tick["step"] == "monitor"]
    assert looks == sorted(set(looks)) and len(looks) >= 10
    assert "<svg" in (played / "replay.html").read_text()
    project.do("fieldbook", "replay", f"--from={begin}", "--http=0", f"--log={played}", "--into=logs/again")
    assert decided(project.path / "logs/again") == decided(played)
