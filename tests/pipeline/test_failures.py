"""What goes wrong: settings, sources, killed processes, and two at once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from scratch import ROAD, ROOT, Project, Run, copy_project, errors, ran, stages

SECOND = pytest.mark.slow
Change = Callable[[Project], None]
WRONG_SETTINGS: dict[str, tuple[Change, str]] = {  # what is done to conf/, and what the message must name
    "key": (lambda project: project.set("evaluate.binz", 15), "evaluate.binz"),
    "type": (lambda project: project.set("evaluate.replicates", "many"), "evaluate.replicates"),
    "range": (lambda project: project.set("evaluate.replicates", 2), "evaluate.replicates"),
    "group": (
        lambda project: project.edit("conf/config.yaml", "- model: all", "- model: none_such"),
        "model/none_such",
    ),
    "gap": (lambda project: project.set("model.boosting.estimator.max_iter", "???"), "boosting.estimator.max_iter"),
    "reference": (lambda project: project.set("model.boosting.estimator.random_state", "${sed}"), "'sed'"),
    "syntax": (
        lambda project: project.edit("conf/model/boosting.yaml", r"\Z", "  unclosed: [0.05\n"),
        "conf/model/boosting.yaml",
    ),
    "misspelt key": (
        lambda project: project.edit(project.problem, "(?m)^  request:", "  requests:"),
        "features.requests",
    ),
}


def unchanged(project: Project, base: Project, *places: str) -> bool:
    """Return whether files are what they are in the project that was copied."""
    return project.files(*places) == base.files(*places)


@pytest.mark.parametrize("case", WRONG_SETTINGS)
def test_a_wrong_setting_is_named_in_one_line(base: Project, project: Project, case: str) -> None:
    change, named = WRONG_SETTINGS[case]
    change(project)
    done = project.run("python3", "src", "settings")
    assert done.returncode == 1 and len(errors(done)) == 1 and named in errors(done)[0], done.stdout
    assert unchanged(project, base, "params.yaml", "data")


def test_a_wrong_setting_stops_at_settings(base: Project, project: Project) -> None:
    WRONG_SETTINGS["key"][0](project)
    done = project.run("dvc", "repro", *ROAD)
    assert done.returncode != 0 and ran(done) == ["settings"], done.stdout
    assert len(errors(done)) == 1, done.stdout
    assert unchanged(project, base, "params.yaml", "dvc.lock", "data")


@SECOND
@pytest.mark.parametrize(
    ("change", "stage", "named"),
    [
        (
            lambda project: project.edit("conf/model/boosting.yaml", r"(?m)^  _target_: .*\n", ""),
            "settings",
            ["model.boosting"],
        ),
        (lambda project: project.set("problem.novelty", 1), "settings", ["novelty"]),
        (
            lambda project: project.edit("conf/model/boosting.yaml", "max_iter:", "max_itr:"),
            "settings",
            ["model.boosting", "max_itr"],
        ),
    ],
    ids=["no target", "wrong argument of the problem", "wrong argument of a model"],
)
def test_what_cannot_be_built_is_told_in_one_line(
    base: Project, project: Project, change: Change, stage: str, named: list[str]
) -> None:
    change(project)
    done = project.run("dvc", "repro", *ROAD)
    assert done.returncode != 0 and ran(done)[-1] == stage, done.stdout
    assert len(errors(done)) == 1 and all(name in errors(done)[0] for name in named), done.stdout
    assert unchanged(
        project, base, "data/models/logistic", "data/evaluation", "data/selection", "data/champion", "data/bento"
    )


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


@SECOND
def test_a_killed_stage_leaves_no_trace(base: Project, make: Callable[[], Project]) -> None:
    undisturbed, killed = make(), make()
    undisturbed.set("model.boosting.estimator.max_iter", 30)
    killed.set("model.boosting.estimator.max_iter", 100_000)  # more than it will have time for
    kill_at(killed, "Running stage 'train@boosting'", 4, "dvc", "repro", "evaluate@boosting")
    assert killed.lock()["train@boosting"] == base.lock()["train@boosting"]
    killed.set("model.boosting.estimator.max_iter", 30)
    for project in (undisturbed, killed):
        assert ran(project.do("dvc", "repro", "evaluate@boosting")) == [
            "settings",
            "code",
            "train@boosting",
            "evaluate@boosting",
        ]
    assert killed.lock() == undisturbed.lock()
    assert killed.files("data") == undisturbed.files("data")


@SECOND
def test_a_second_machine_gets_the_same_lock(base: Project, bare: Project, tmp_path: Path) -> None:
    """No cache, no outputs, one thread, another folder, another hash seed."""
    other = copy_project(bare, tmp_path / "elsewhere" / "under another name")
    done = other.do("dvc", "repro", *ROAD, OMP_NUM_THREADS="1", PYTHONHASHSEED="1")
    assert {*ran(done), "settings"} == stages(bare.path, *ROAD).keys()
    ours, theirs = base.lock(), other.lock()
    assert [name for name in ours if ours[name] != theirs.get(name)] == []
    assert ours.keys() == theirs.keys()


USE = """
import sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("a")
with mlflow.start_run(run_name="b"):
    mlflow.log_metric("c", 1.0)
print(mlflow.search_runs(output_format="list")[0].data.metrics)
"""


def open_store_module() -> str:
    """Return the module that opens MLflow's store."""
    (path,) = [path for path in (ROOT / "src/fieldbook").rglob("*.py") if "\ndef open_store(" in path.read_text()]
    return ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)


@SECOND
def test_four_processes_may_open_the_store_first(tmp_path: Path) -> None:
    project = Project(tmp_path)
    env = project.environment(PYTHONPATH=str(ROOT / "src"))
    code = f"import sys, pathlib, {open_store_module()} as it; print(it.open_store(pathlib.Path(sys.argv[1])))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipes = {"env": env, "cwd": tmp_path, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, **pipes) for _ in range(4)]
    try:
        said = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0] * 4, "\n".join(errors for _, errors in said)
    assert {out.strip() for out, _ in said} == {f"sqlite+pysqlite:///{tmp_path / 'mlflow.db'}"}
    assert not (tmp_path / "mlflow.draft").exists()
    used = project.run(sys.executable, "-c", USE, f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert used.returncode == 0 and "{'c': 1.0}" in used.stdout, used.stdout
