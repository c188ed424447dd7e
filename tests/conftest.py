"""What the tests share: the project's folder, and outputs of the pipeline."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from server import Server, start

from fieldbook.core.section import section
from fieldbook.scope.framing import Framing
from fieldbook.scope.framings import AnyFraming
from fieldbook.scope.problem import Problem, build_problem

Setting = Callable[[str, Any], Any]
ROOT = Path(__file__).parents[1]
# What takes longest begins first, so that no worker is left with it at the end. Files that wait for the same scratch
# project do not follow one another.
FIRST = (
    "pipeline/test_repro.py",
    "serve/test_container.py",
    "serve/test_faults.py",
    "pipeline/test_adopt.py",
    "serve/test_fuzz.py",
    "problems/flights/test_framings.py",
    "pipeline/test_experiments.py",
    "select/test_tune.py",
    "pipeline/test_failures.py",
    "problems/flights/test_figures.py",
    "serve/test_prometheus.py",
    "measure/test_bench.py",
)


@pytest.hookimpl(trylast=True)  # after pytest-randomly, which shuffles the files
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first; the others stay in the order they have."""
    place = {name: n for n, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(str(item.path).rpartition("/tests/")[2], len(FIRST)))


@pytest.fixture(scope="session")
def project() -> Path:
    """Return the project's folder; the pipeline must have run (`make test` sees to that)."""
    missing = [name for name in ("champion/manifest.json", "bento/bento.yaml") if not (ROOT / "data" / name).exists()]
    if missing:
        pytest.fail(f"data/{missing[0]} is not there: run `make test`, or `dvc repro` before pytest", pytrace=False)
    return ROOT


@pytest.fixture(scope="session")
def setting(project: Path) -> Setting:
    """Return what reads a section of the settings, as `section` does: by its name and type."""
    return partial(section, folder=project / "data/settings")


@pytest.fixture(scope="session")
def task(setting: Setting) -> Framing:
    """Return the framing that is asked."""
    return setting("task", AnyFraming)


@pytest.fixture(scope="session")
def problem(setting: Setting) -> Problem:
    """Return the problem of this project."""
    return build_problem(setting("problem", dict[str, Any]))


@pytest.fixture(scope="session")
def manifest(project: Path) -> dict[str, Any]:
    """Return the manifest of the champion."""
    return json.loads((project / "data/champion/manifest.json").read_text())


@pytest.fixture(scope="session")
def raw(project: Path) -> dict[str, pd.DataFrame]:
    """Return the raw tables."""
    return {path.stem: pd.read_parquet(path) for path in sorted((project / "data/raw").glob("*.parquet"))}


@pytest.fixture(scope="session")
def tracked(project: Path) -> list[Path]:
    """Return the files that git has, or would have, in this tree."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout.splitlines()
    return [project / name for name in listed if (project / name).is_file()]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the workers of a run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="module")
def server(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running Bento, shared by the tests of a module."""
    started = start(project, tmp_path_factory.mktemp("server"))
    yield started
    started.stop()
