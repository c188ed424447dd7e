"""The months after training, played: by HTTP and in process alike, nothing twice and nothing lost when it is killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fieldbook.continual.caller import Stage, bento, inside
from fieldbook.continual.player import Player
from fieldbook.continual.replay import Replay, play
from fieldbook.continual.script import Script, of_log, of_project
from fieldbook.continual.weekly import answered
from fieldbook.core.refuses import refuses
from fieldbook.experiment.relive import relive
from fieldbook.observe import log
from fieldbook.package.manifest import read_manifest
from fieldbook.serve.plan import Canary, Plan, latest, write_plan
from fieldbook.serve.planted import challenger

# What hangs on the process and its clock, and on nothing that was asked.
OF_THE_PROCESS = ("trace_id", "model_ms")


def script_of(project: Path, begin: np.datetime64, hours: int) -> Script:
    """Return what the project's tables have of some hours."""
    end = begin + np.timedelta64(hours, "h")
    return of_project(read_manifest(project / "data/champion"), begin, end, project / "data")


@pytest.fixture(scope="module")
def begin(project: Path) -> np.datetime64:
    """Return a day near the end of the examples."""
    times = pd.read_parquet(project / "data/examples/examples.parquet", columns=["as_of"])["as_of"]
    if times.isna().all():
        pytest.skip("this problem has no time")
    return np.datetime64(times.quantile(0.95), "D").astype("datetime64[ms]")


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the rows of a log, but for what hangs on the process, in an order of their own."""
    rows = [
        {key: value for key, value in row.items() if key not in OF_THE_PROCESS} for row in log.records(folder, name)
    ]
    return sorted(rows, key=lambda row: (row["time"], row["request_id"]))


def test_both_ways_give_the_same_answers_and_the_same_rows(project: Path, begin: np.datetime64, tmp_path: Path) -> None:
    """What the Bento answers over HTTP is what its application answers in this process, and so is what they log."""
    script, end = script_of(project, begin, 10), begin + np.timedelta64(10, "h")
    answers: dict[str, list[tuple[str, int, bytes]]] = {"http": [], "process": []}
    for name, way in (("http", lambda stage: bento(stage, project / "data/bento")), ("process", inside)):
        stage = Stage(project / "data/champion", tmp_path / name)
        with way(stage) as caller:
            ask = caller.ask

            def noted(
                verb: str, path: str, body: bytes, headers: Any, name: str = name, ask: Any = ask
            ) -> tuple[int, bytes]:
                status, answer = ask(verb, path, body, headers)
                answers[name].append((path, status, answer if path == "/predict" else b""))
                return status, answer

            caller.ask = noted
            Player(script, stage.folder, stage.token).play(caller, begin, end, lambda at: None)
    assert len(answers["http"]) > 100 and answers["http"] == answers["process"]
    for name in ("predictions", "feedback"):
        http, process = (rows_of(tmp_path / way, name) for way in answers)
        assert http == process and len(http) > 0
    rows = rows_of(tmp_path / "http", "predictions")
    assert [row["request_id"].encode() for row in rows] == sorted(
        script.ids, key=lambda name: (times(script)[name], name)
    )
    assert {row["time"][:10] for row in rows} == {str(begin.astype("datetime64[D]"))}  # simulated, not the clock's


def times(script: Script) -> dict[bytes, np.datetime64]:
    """Return when each request is asked."""
    return dict(zip(script.ids.tolist(), script.time))


def test_a_log_is_played_as_it_was(project: Path, begin: np.datetime64, tmp_path: Path) -> None:
    """A replay of the log of a replay leaves the same log."""
    script, end = script_of(project, begin, 10), begin + np.timedelta64(10, "h")
    settings, champion = Replay(http_hours=0, tick_hours=24), project / "data/champion"
    first, again = Stage(champion, tmp_path / "first"), Stage(champion, tmp_path / "again")
    play(script, first, begin, end, begin, settings, {"begin": str(begin)})
    script = of_log(first.folder, read_manifest(champion), begin, end)
    play(script, again, begin, end, begin, settings, {"begin": str(begin)})
    for name in ("predictions", "feedback"):
        assert rows_of(first.folder, name) == rows_of(again.folder, name) != []
    task = read_manifest(champion).framing.task
    assert (answered(first.folder, task).decision == answered(again.folder, task).decision).all()


@pytest.mark.slow
def test_a_tick_changes_who_answers_and_the_log_judges_them(
    project: Path, begin: np.datetime64, tmp_path: Path
) -> None:
    """A plan that is written at night is followed from the next request on, over HTTP and in process."""
    champion, stage = project / "data/champion", Stage(project / "data/champion", tmp_path / "played")
    version, other = read_manifest(champion).version, challenger(champion, stage.models)
    said = {"champion": version, "who": "a test", "when": "2013-01-01T00:00:00Z"}

    def tick(now: str, logs: Path, models: Path) -> None:
        number = latest(models) + 1
        test = Canary(challenger=other, share=0.4) if number == 1 else None
        write_plan(models, Plan(number=number, **said, test=test, why=f"it is {now}"))

    end, hours = begin + np.timedelta64(30, "h"), Replay(http_hours=20, tick_hours=10)
    script = script_of(project, begin, 30)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        play(script, stage, begin, end, begin + np.timedelta64(20, "h"), hours, {"begin": str(begin)}, tick)
    rows = rows_of(stage.folder, "predictions")
    assert len(rows) == len(script) > 300
    for row in rows:
        wanted = int((np.datetime64(row["time"][:19]) - begin) / np.timedelta64(10, "h")) or None
        assert row.get("plan") == wanted, row
    tried = [row for row in rows if row.get("plan") == 1]
    assert 0.3 < np.mean([row["arm"] == other for row in tried]) < 0.5
    assert {row["arm"] for row in rows if row.get("plan") == 2} == {"champion"}
    seen = relive(stage.folder, stage.models / other, champion, stage.models)
    of_canary = np.array([row.get("plan") == 1 for row in rows])
    assert set(seen.logged.chances[of_canary].max(axis=1).round(6)) <= {0.6, 1.0}
    assert (seen.logged.propensity > 0).all()  # what was decided is what one of them would have decided


KILLED = """
import sys
from pathlib import Path
from fieldbook.continual.replay import main
project, into, begin, end = sys.argv[1:]
note = Path(into, "ticks.txt")
def tick(now, logs, models):
    with note.open("a") as file:
        file.write(now + "\\n")
main(None, begin, end, 4, None, None, Path(into), tick)
"""


def command(project: Path, into: Path, begin: np.datetime64, days: int) -> list[str]:
    """Return the command of a replay of some days, the first four hours over HTTP, with a tick that is noted."""
    end = begin + np.timedelta64(days, "D")
    return [sys.executable, "-c", KILLED, str(project), str(into), str(begin), str(end)]


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_with_nothing_twice_and_nothing_lost(
    project: Path, begin: np.datetime64, tmp_path: Path
) -> None:
    """Killed three times, over HTTP and in process, it leaves what one that was never killed leaves."""
    whole, broken, rng = tmp_path / "whole", tmp_path / "broken", random.Random(4)
    environment = {**os.environ, "FIELDBOOK_CHAMPION": str(project / "data/champion")}
    run = lambda into: subprocess.Popen(command(project, into, begin, 2), cwd=project, env=environment)
    beside, requests, kills = run(whole), len(script_of(project, begin, 48)), 0
    for share in [rng.uniform(0.1, 1.0) for _ in range(3)]:
        process = run(broken)
        before, end = count(broken), time.monotonic() + 60
        wanted = before + max(1, int(share * (requests - before) * 0.3))
        while process.poll() is None and count(broken) < wanted and time.monotonic() < end:
            time.sleep(0.005)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_for_the_server(broken)
    assert kills >= 2
    assert run(broken).wait(timeout=120) == 0 == beside.wait(timeout=120)
    assert count(whole) == requests
    for name in ("predictions", "feedback"):
        assert rows_of(whole, name) == rows_of(broken, name)
    ticks = [folder.joinpath("ticks.txt").read_text().split() for folder in (whole, broken)]
    assert ticks[0] == sorted(set(ticks[1])) and len(ticks[0]) == 2
    known, again = (json.loads((folder / "replay.json").read_text()) for folder in (whole, broken))
    assert known == again
    assert json.loads((whole / "weeks.json").read_text()) == json.loads((broken / "weeks.json").read_text())
    with refuses("holds another replay"):
        play(
            script_of(project, begin, 24), Stage(project / "data/champion", whole), begin, begin, begin,
            Replay(http_hours=0, tick_hours=24), {"begin": "another"},
        )  # fmt: skip


def count(folder: Path) -> int:
    """Return how many requests stand in a log."""
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("predictions-*.jsonl"))


def wait_for_the_server(folder: Path) -> None:
    """Wait until the server of a killed replay, which ends with it, has let go of its log."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        held = []
        for path in folder.glob("*.jsonl"):
            with log.left(path) as free:
                held.append(not free)
        if not any(held):
            return
        time.sleep(0.1)
    raise AssertionError("the server of a killed replay is still there")
