"""`dvc exp run`: in the workspace, and queued in a temporary one."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import yaml
from scratch import FILE, ROOT, Project, of_model, ran

pytestmark = pytest.mark.slow


def test_an_override_is_honoured(base: Project, project: Project) -> None:
    done = project.do("dvc", "exp", "run", "select", "-S", "model.boosting.estimator.max_iter=5")
    assert sorted(ran(done)) == sorted(["settings", "code", *of_model(base, "boosting", "select"), "select"])
    assert project.read("params.yaml")["model"]["boosting"]["estimator"]["max_iter"] == 5
    assert project.figure("boosting") != base.figure("boosting")
    assert project.figure("logistic") == base.figure("logistic")
    assert project.files("conf") == base.files("conf")
    listed = project.do("dvc", "exp", "list", "--name-only").stdout.split()
    assert len(listed) == 1, "the experiment is not kept"
    project.do("python3", "src", "settings")
    assert project.files("params.yaml") == base.files("params.yaml"), "composing does not go back to conf/"


def test_a_choice_of_models_is_honoured(base: Project, project: Project) -> None:
    project.set("model.logistic.estimator.C", 0.02)
    project.set("model.boosting.estimator.max_iter", 5)
    done = project.do("dvc", "exp", "run", "select", "-S", "model=logistic")
    assert sorted(ran(done)) == sorted(["settings", "code", *of_model(base, "logistic", "select"), "select"])
    assert project.read("params.yaml")["models"] == ["logistic"]
    board = project.read("data/selection/leaderboard.json")
    assert [row["model"] for row in board["models"]] == [board["champion"]] == ["logistic"]
    assert project.figure("logistic") != base.figure("logistic")


def test_a_wrong_override_is_refused(base: Project, project: Project) -> None:
    done = project.run("dvc", "exp", "run", "select", "-S", "model.boosting.estimator.max_itr=5")
    assert done.returncode != 0 and ran(done) == [], done.stdout
    assert "max_itr" in done.stdout
    assert project.files("params.yaml", "data") == base.files("params.yaml", "data")


@dataclass
class Grid:
    """A project after a queued grid.

    Attributes
    ----------
    project : the project.
    status : of each experiment, by name.
    before, after : MD5 of the workspace's files when the grid was queued and when it was done.
    aliases : of MLflow's registry before.
    """

    project: Project
    before: dict[str, str]
    aliases: dict[str, str]
    status: dict[str, str] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)


WATCHED = ("conf", "src/fieldbook", "data", "params.yaml", "dvc.lock")


def statuses(project: Project) -> dict[str, str]:
    """Return the status of each experiment in the queue, by name."""
    rows = project.do("dvc", "queue", "status").stdout.splitlines()
    return {row.split()[1]: row.split()[-1] for row in rows if re.match(r"[0-9a-f]{7} ", row)}


def wait_for_queue(project: Project, seconds: float = 300) -> dict[str, str]:
    """Return the statuses once nothing is queued or running; fail if the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = statuses(project)
        if found and not {"Queued", "Running"} & set(found.values()):
            return found
        time.sleep(2)
    pytest.fail(f"the queue was not done within {seconds:.0f} s: {statuses(project)}")


@pytest.fixture(scope="module")
def grid(make: Callable[[], Project]) -> Iterator[Grid]:
    """Run a grid of two in the queue, while the workspace's own code is broken. Read it only."""
    project = make()
    project.do("git", "add", "--force", FILE)  # a temporary workspace has what git knows, and no other file
    project.commit("the table is kept")
    project.do("dvc", "exp", "run", "--queue", "track", "-S", "model.boosting.estimator.max_iter=5,10")
    (code,) = (project.path / "src/fieldbook").rglob("train.py")
    with code.open("a") as module:
        module.write("\nraise RuntimeError('this is the code of the workspace, not of the snapshot')\n")
    found = Grid(project, before=project.files(*WATCHED), aliases=project.aliases())
    try:
        project.do("dvc", "queue", "start", "-j", "1")
        found.status = wait_for_queue(project)
        found.after = project.files(*WATCHED)
        yield found
    finally:
        project.run("dvc", "queue", "stop", "--kill")


def test_a_queued_grid_runs_the_code_it_was_queued_with(grid: Grid) -> None:
    logs = "\n".join(grid.project.run("dvc", "queue", "logs", name).stdout[-3000:] for name in grid.status)
    assert list(grid.status.values()) == ["Success", "Success"], logs


def test_a_queued_grid_leaves_the_workspace_alone(grid: Grid) -> None:
    code = {path: md5 for path, md5 in grid.after.items() if "__pycache__" not in path}
    assert code == {path: md5 for path, md5 in grid.before.items() if "__pycache__" not in path}


def test_each_point_of_a_grid_has_its_own_figures(base: Project, grid: Grid) -> None:
    commits = dict(line.split()[::-1] for line in refs(grid.project))
    assert commits.keys() == grid.status.keys()
    files = "data/evaluation/boosting/metrics.json", "params.yaml"
    metrics, params = (
        [grid.project.do("git", "show", f"{at}:{file}").stdout for at in commits.values()] for file in files
    )
    assert sorted(yaml.safe_load(text)["model"]["boosting"]["estimator"]["max_iter"] for text in params) == [5, 10]
    assert len({(base.path / files[0]).read_text(), *metrics}) == 3, "some have the same figures"


def refs(project: Project) -> list[str]:
    """Return a line for each experiment that is kept: its commit and its name."""
    listed = project.do("git", "for-each-ref", "--format=%(objectname) %(refname:lstrip=4)", "refs/exps").stdout
    return [line for line in listed.splitlines() if len(line.split()) == 2]


def test_a_grid_is_recorded_in_the_projects_own_store(base: Project, grid: Grid) -> None:
    assert len(grid.project.digests()) == len(base.digests()) + 2
    store = (grid.project.path / "mlflow.db").read_bytes()
    assert str(ROOT / "mlruns").encode() not in store and b"tmp/exps" not in store


def test_a_grid_does_not_move_the_aliases(grid: Grid) -> None:
    """Champion and challenger are what the workspace chose; an experiment becomes one when it is applied."""
    assert grid.project.aliases() == grid.aliases
