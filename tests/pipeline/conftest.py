"""The scratch project: made and run once for all workers, copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from scratch import ROAD, Project, copy_project, write_project


@pytest.fixture(scope="session")
def bare(shared: Path) -> Project:
    """Return a committed project that has never run. Copy it; do not change it."""
    path = shared / "bare" / "project"
    with FileLock(f"{path.parent}.lock"):
        return Project(path) if (path / ".git").exists() else write_project(path)


@pytest.fixture(scope="session")
def base(shared: Path, bare: Project) -> Project:
    """Return a project whose pipeline ran once and was committed. Copy it; do not change it."""
    path, log = shared / "base" / "project", shared / "base" / "log"
    with FileLock(f"{path.parent}.lock"):
        if not log.exists():
            shutil.rmtree(path.parent, ignore_errors=True)
            project = copy_project(bare, path)
            done = project.do("dvc", "repro", *ROAD)
            project.commit("the first run")
            log.write_text(done.stdout)
    project = Project(path)
    project.log = log.read_text()
    return project


@pytest.fixture(scope="session")
def make(base: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Project]]:
    """Return a function that makes a copy of the project that has run; the copies go when the session ends."""
    made: list[Path] = []

    def copy() -> Project:
        made.append(tmp_path_factory.mktemp("copy"))
        return copy_project(base, made[-1] / "project")

    yield copy
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def project(make: Callable[[], Project]) -> Iterator[Project]:
    """Return a copy of the project that has run, for one test."""
    copy = make()
    yield copy
    shutil.rmtree(copy.path.parent, ignore_errors=True)
