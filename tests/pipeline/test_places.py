"""A project works wherever it is, and writes nowhere else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from scratch import Project, errors

pytestmark = pytest.mark.slow


@pytest.fixture
def moved(base: Project, tmp_path: Path) -> Project:
    """Return a copy of a project that ran, in a folder whose name is no part of a URL; its store was not asked."""
    place = tmp_path / "job%2Fmain, 50 # 7 größe" / "project"
    shutil.copytree(base.path, place, symlinks=True)
    return Project(place)


def test_a_copy_runs_and_writes_nowhere_else(base: Project, moved: Project) -> None:
    """All that is new is in the copy: the model, MLflow's run and its files; what was recorded is found there, too."""
    before = base.files("mlruns", "mlflow.db", "data")
    moved.set("model.boosting.estimator.max_iter", 5)
    shell = {"MLFLOW_REGISTRY_URI": "http://nobody.invalid", "MLFLOW_TRACKING_URI": "http://nobody.invalid"}
    moved.do("dvc", "repro", "bento", "track", **shell, MLFLOW_RUN_ID="another's", MLFLOW_EXPERIMENT_NAME="another")
    assert base.files("mlruns", "mlflow.db", "data") == before
    assert {path.name for path in moved.path.parent.iterdir()} <= {"project", "aside"}
    assert [path.name for path in moved.path.parents[1].iterdir()] == [moved.path.parent.name]
    assert len(moved.digests()) == len(base.digests()) + 1 and moved.aliases().keys() == base.aliases().keys()
    made = {path.relative_to(moved.path) for path in (moved.path / "mlruns").rglob("*.pkl")}
    assert len(made) == len([*(base.path / "mlruns").rglob("*.pkl")]) + 1
    lineage = moved.read("data/champion/manifest.json")["lineage"]["id"]
    assert '"model": ' in moved.do("fieldbook", "lineage", lineage).stdout
    assert moved.do("fieldbook", "ready").stdout.startswith("shop: a Bento with ")


def test_without_git_one_line_says_what_to_do(moved: Project) -> None:
    """As after the download of an archive."""
    shutil.rmtree(moved.path / ".git")
    done = moved.run("fieldbook", "repro")
    (told,) = errors(done)
    assert done.returncode == 1 and "run `git init` here" in told
    moved.do("git", "init", "-q")
    assert "up to date" in moved.do("dvc", "repro", "bento").stdout


def test_verify_looks_wherever_things_are(moved: Project) -> None:
    """In a folder of a larger repository, with the cache elsewhere: what differs is found, and what is gone is said."""
    elsewhere = moved.path.parent / "cache"
    moved.do("dvc", "cache", "dir", "../cache")
    shutil.move(moved.path / ".dvc/cache", elsewhere)
    shutil.rmtree(moved.path / ".git")
    larger = Project(moved.path.parent)
    larger.do("git", "init", "-q")
    larger.do("git", "-c", "user.name=a", "-c", "user.email=a@b", "add", "project")
    larger.do("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "all")
    assert moved.run("fieldbook", "verify").returncode == 0
    curve = moved.path / "data/evaluation/boosting/calibration.csv"
    text = curve.read_text()
    curve.unlink()  # it may be a link into the cache
    curve.write_text(text.replace("0.", "0.9"))
    done = moved.run("fieldbook", "verify")
    assert done.returncode == 1 and "1 different" in done.stdout, done.stdout
    assert [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("DIFFERENT")] == [
        "data/evaluation/boosting/calibration.csv"
    ]
    shutil.rmtree(elsewhere)
    done = moved.run("fieldbook", "verify")
    assert done.returncode == 1 and "1 not looked at, 0 different" in done.stdout, done.stdout
