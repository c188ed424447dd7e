"""What goes wrong: settings, sources, killed processes, and two at once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from scratch import COMPUTED, ROOT, Project, Run, copy_project, ran, told

SLOW = pytest.mark.slow
WRONG_SETTINGS = {
    "key": ("conf/config.yaml", "  bins: 15", "  bins: 15\n  binz: 15", "evaluate.binz"),
    "type": ("conf/config.yaml", "bins: 15", "bins: many", "evaluate.bins"),
    "range": ("conf/config.yaml", "replicates: 20   ", "replicates: 2   ", "evaluate.replicates"),
    "group": ("conf/config.yaml", "- model: all", "- model: none_such", "model/none_such"),
    "reference": ("conf/model/boosting.yaml", r"\$\{seed\}", "${sed}", "'sed'"),
    "syntax": ("conf/model/boosting.yaml", "learning_rate: 0.05", "learning_rate: [0.05", "conf/model/boosting.yaml"),
}


def unchanged(project: Project, base: Project, *places: str) -> bool:
    """Return whether files are what they are in the project that was copied."""
    return project.files(*places) == base.files(*places)


@SLOW
@pytest.mark.parametrize("case", WRONG_SETTINGS)
def test_a_wrong_setting_stops_at_scope(base: Project, project: Project, case: str) -> None:
    file, old, new, named = WRONG_SETTINGS[case]
    project.edit(file, old, new)
    done = project.run("dvc", "repro", "bento", "track")
    assert done.returncode != 0 and ran(done) == ["scope"], done.stdout
    assert len(told(done)) == 1 and named in told(done)[0], done.stdout
    assert unchanged(project, base, "params.yaml", "dvc.lock", "data")


@SLOW
def test_a_misspelt_key_is_named_as_it_was_written(project: Project) -> None:
    project.edit("conf/config.yaml", "  bins: 15", "  binz: 15")
    done = project.run("dvc", "repro", "scope")
    assert done.returncode != 0 and len(told(done)) == 1 and "evaluate.binz" in told(done)[0], done.stdout


@SLOW
@pytest.mark.parametrize(
    ("file", "old", "new", "target", "named"),
    [
        (
            "conf/model/boosting.yaml",
            "  _target_: fieldbook.pipeline.tabular",
            "  # nothing",
            "train@boosting",
            "model.boosting",
        ),
        ("conf/problem/flights.yaml", "late_after: 15", "late_after: soon", "label", "late_after"),
    ],
)
def test_what_cannot_be_built_is_told_in_one_line(
    project: Project, file: str, old: str, new: str, target: str, named: str
) -> None:
    project.edit(file, old, new)
    done = project.run("dvc", "repro", target)
    assert done.returncode != 0 and len(told(done)) == 1 and named in told(done)[0], done.stdout


@SLOW
def test_a_wrong_argument_names_model_and_key(base: Project, project: Project) -> None:
    project.edit("conf/model/boosting.yaml", "max_iter:", "max_itr:")
    done = project.run("dvc", "repro", "bento", "track")
    assert done.returncode != 0 and ran(done) == ["scope", "train@boosting"], done.stdout
    assert len(told(done)) == 1 and "model.boosting" in told(done)[0] and "max_itr" in told(done)[0]
    assert unchanged(
        project, base, "data/models/logistic", "data/evaluation", "data/selection", "data/champion", "data/bento"
    )


def storm(table: pd.DataFrame) -> pd.DataFrame:
    """Make the wind too strong in three rows."""
    table.loc[[5, 70, 800], "wind_speed"] = "999"
    return table


def double(table: pd.DataFrame) -> pd.DataFrame:
    """Repeat a row."""
    return pd.concat([table, table.iloc[[7]]])


def words(table: pd.DataFrame) -> pd.DataFrame:
    """Write text where numbers belong."""
    table.loc[[3, 4, 5], "dep_delay"] = "soon"
    return table


BREACHES: dict[str, tuple[str, Callable[[pd.DataFrame], pd.DataFrame], list[str]]] = {
    "range": (
        "weather",
        storm,
        ["column wind_speed", "'at most 120'", "3 rows", "row 5: 999.0", "row 70:", "row 800:"],
    ),
    "key": ("airlines", double, ["columns carrier", "'unique key'", "2 rows", "row 7:", "row 16:"]),
    "type": ("flights", words, ["column dep_delay", "'type float'", "3 rows", "row 3: 'soon'", "row 4:", "row 5:"]),
    "column": ("planes", lambda table: table.drop(columns="seats"), ["column seats", "missing"]),
    "empty": ("airports", lambda table: table.head(0), ["no rows"]),
}


@SLOW
@pytest.mark.parametrize("breach", BREACHES)
def test_a_source_that_breaks_its_contract_changes_nothing(base: Project, project: Project, breach: str) -> None:
    name, spoil, expected = BREACHES[breach]
    path = project.path / "source" / f"{name}.csv"
    spoil(pd.read_csv(path, dtype=str)).to_csv(path, index=False)
    done = project.run("dvc", "repro", "--single-item", "--force", "ingest")
    assert done.returncode != 0 and ran(done) == ["ingest"], done.stdout
    assert len(told(done)) == 1, done.stdout
    assert [part for part in [f"table {name}", *expected] if part not in told(done)[0]] == [], told(done)[0]
    assert unchanged(project, base, "data", "params.yaml", "dvc.lock")


@SLOW
def test_a_file_that_is_empty_or_gone_is_named(base: Project, project: Project) -> None:
    (project.path / "source/airlines.csv").write_text("")
    done = project.run("python3", "src", "ingest")
    assert done.returncode == 1 and len(told(done)) == 1 and "airlines" in told(done)[0], done.stdout
    (project.path / "source/airlines.csv").unlink()
    done = project.run("python3", "src", "ingest")
    assert done.returncode == 1 and len(told(done)) == 1 and "airlines" in told(done)[0], done.stdout
    assert unchanged(project, base, "data")


def start(project: Project, *command: str) -> subprocess.Popen[str]:
    """Start a command in a process group of its own."""
    return subprocess.Popen(
        command, cwd=project.path, env=project.environment(PYTHONUNBUFFERED="1"), text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def kill_at(project: Project, line: str, seconds: float, *command: str) -> Run:
    """Run a command and kill it with its children, some seconds after it has said `line`."""
    process = start(project, *command)
    assert process.stdout
    said = []
    try:
        for text in process.stdout:
            said.append(text)
            if line in text:
                break
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=seconds)
        ended = process.poll()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=60)
        said += process.stdout.readlines()
        process.stdout.close()
    assert ended is None, f"it was over before it could be killed:\n{''.join(said)}"
    return subprocess.CompletedProcess(command, process.returncode, "".join(said))


@SLOW
def test_a_killed_stage_leaves_no_trace(base: Project, make: Callable[[], Project]) -> None:
    undisturbed, killed = make(), make()
    undisturbed.edit("conf/model/boosting.yaml", r"max_iter: \d+", "max_iter: 30")
    killed.edit("conf/model/boosting.yaml", r"max_iter: \d+", "max_iter: 100000")  # more than it will have time for
    kill_at(killed, "Running stage 'train@boosting'", 4, "dvc", "repro", "evaluate@boosting")
    assert killed.lock()["train@boosting"] == base.lock()["train@boosting"]
    killed.edit("conf/model/boosting.yaml", r"max_iter: \d+", "max_iter: 30")
    for project in (undisturbed, killed):
        assert ran(project.do("dvc", "repro", "evaluate@boosting")) == ["scope", "train@boosting", "evaluate@boosting"]
    assert killed.lock() == undisturbed.lock()
    assert killed.files("data") == undisturbed.files("data")


@SLOW
def test_a_second_machine_gets_the_same_lock(base: Project, bare: Project, tmp_path: Path) -> None:
    """No cache, no outputs, one thread, another folder, another hash seed."""
    other = copy_project(bare, tmp_path / "elsewhere" / "under another name")
    done = other.do("dvc", "repro", "bento", "track", OMP_NUM_THREADS="1", PYTHONHASHSEED="1")
    assert sorted(set(ran(done)) - {"scope"}) == sorted(COMPUTED)
    ours, theirs = base.lock(), other.lock()
    assert [name for name in ours if ours[name] != theirs.get(name)] == []
    assert ours.keys() == theirs.keys()


OPEN = "import sys, pathlib; from fieldbook.track import open_store; print(open_store(pathlib.Path(sys.argv[1])))"
USE = """
import sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("a")
with mlflow.start_run(run_name="b"):
    mlflow.log_metric("c", 1.0)
print(mlflow.search_runs(output_format="list")[0].data.metrics)
"""


@SLOW
def test_four_processes_may_open_the_store_first(tmp_path: Path) -> None:
    project = Project(tmp_path)
    env = project.environment(PYTHONPATH=str(ROOT / "src"))
    command = [sys.executable, "-c", OPEN, str(tmp_path)]
    kept = {"env": env, "cwd": tmp_path, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, **kept) for _ in range(4)]
    try:
        said = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0] * 4, "\n".join(errors for _, errors in said)
    assert {out.strip() for out, _ in said} == {f"sqlite:///{tmp_path / 'mlflow.db'}"}
    assert not (tmp_path / "mlflow.draft").exists()
    used = project.run(sys.executable, "-c", USE, f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert used.returncode == 0 and "{'c': 1.0}" in used.stdout, used.stdout
