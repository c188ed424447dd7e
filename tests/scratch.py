"""A scratch project: the working tree as git sees it, with a small table and cheap settings, for real DVC.

What is tried here is the mechanics, so a stage shall cost no more than its start-up. The table is adopted as anybody's
would be: nothing here knows this project's problem. Nor does it list stages: DVC says which there are, and what follows
from what.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent  # of the environment, not of the Python behind it
ROWS = 2400
FILE = "data/sources/shop.csv"
PROBLEM = "conf/problem/shop.yaml"  # what it says overrides what is general
MODELS = ["boosting", "heuristic", "logistic"]
CHEAPER: dict[str, Any] = {
    "evaluate.replicates": 20,
    "leakage.replicates": 20,
    "leakage.collapse": 1,  # so few rows say little about drift
    "parity.rows": 100,
    "model.boosting.estimator.max_iter": 20,
    "model.boosting.small": [],  # no search for settings
    "model.logistic.small": [],
}
ROAD = ("bento", "track")  # what is run here: all that these follow from

Run = subprocess.CompletedProcess[str]


class Project:
    """A scratch project.

    Attributes
    ----------
    path : its root.
    problem : the file in conf/problem/ that it asks.
    log : what its first run said; empty for a copy.
    """

    def __init__(self, path: Path, problem: str = PROBLEM) -> None:
        self.path, self.problem, self.log = path, problem, ""

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

    def edit(self, file: str, pattern: str, new: str) -> None:
        """Replace the one place in a file that matches a regular expression."""
        text, times = re.subn(pattern, new, (self.path / file).read_text())
        assert times == 1, f"{file}: {times} places match {pattern!r}"
        (self.path / file).write_text(text)

    def set(self, key: str, value: Any) -> None:
        """Give a setting, named by its dotted key, another value: a model's in its file, all others in the problem's.

        Where the general files in conf/ say it, too, the problem's overrides them. Comments are lost.
        """
        head, *rest = key.split(".")
        keys, place = ([head, *rest], self.problem) if head != "model" else (rest, f"conf/model/{rest[0]}.yaml")
        text = (self.path / place).read_text()
        inner = said = yaml.safe_load(text)
        for name in keys[:-1]:
            inner = inner.setdefault(name, {})
        inner[keys[-1]] = value
        first = "".join(re.findall(r"\A# @package.*\n", text))
        (self.path / place).write_text(first + yaml.safe_dump(said, sort_keys=False, allow_unicode=True))

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


def errors(done: Run) -> list[str]:
    """Return the lines that the project itself said about an error."""
    assert "Traceback" not in done.stdout, done.stdout
    return re.findall(r"(?m)^fieldbook: (.*)$", done.stdout)


@cache
def stages(path: Path, *targets: str) -> dict[str, set[str]]:
    """Return the stages that targets follow from, and for each the stages that read what it leaves, as DVC sees it."""
    code = (
        "import json, sys\nfrom dvc.repo import Repo\ngraph = Repo().index.graph\n"
        "of = {stage.addressing: {s.addressing for s in graph.predecessors(stage)} for stage in graph}\n"
        "print(json.dumps({name: sorted(found) for name, found in of.items()}))\n"
    )
    after: dict[str, list[str]] = json.loads(Project(path).do(sys.executable, "-c", code).stdout.splitlines()[-1])
    wanted, grown = set(targets), set(targets)
    while grown:
        grown = {name for name, readers in after.items() if grown & set(readers)} - wanted
        wanted |= grown
    return {name: set(readers) & wanted for name, readers in after.items() if name in wanted}


def of_model(project: Project, model: str, *targets: str) -> list[str]:
    """Return the stages of a model among those that targets follow from."""
    return sorted(name for name in stages(project.path, *targets) if name.endswith(f"@{model}"))


def shop() -> pd.DataFrame:
    """Return orders, hour by hour; whether one is sent back depends on price and kind."""
    rng = np.random.default_rng(7)
    price = rng.gamma(2, 20, ROWS).round(2)
    kind = rng.choice(["shoes", "books", "tools"], ROWS)
    back = rng.random(ROWS) < 1 / (1 + np.exp(1.5 - 0.03 * price - (kind == "shoes")))
    return pd.DataFrame(
        {
            "order": np.arange(ROWS),
            "placed": pd.date_range("2024-01-01", periods=ROWS, freq="h").strftime("%Y-%m-%dT%H:%M"),
            "price": price,
            "kind": kind,
            "weight": np.where(rng.random(ROWS) < 0.1, np.nan, rng.normal(2, 0.5, ROWS).round(2)),
            "sent_back": np.where(back, "yes", "no"),
        }
    )


def copy_tree(path: Path, models: list[str], problem: str = PROBLEM) -> Project:
    """Copy what git sees of the working tree, without outputs and with some of the models only."""
    names = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    assert names.returncode == 0, names.stderr
    for name in names.stdout.rstrip("\0").split("\0"):
        output = name == "dvc.lock" or (
            name.startswith("data/") and not name.startswith(("data/.git", "data/sources/"))
        )
        if (ROOT / name).is_file() and not output:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, path / name)
    for model in (path / "conf" / "model").glob("*.yaml"):
        if model.stem not in models:
            model.unlink()
    return Project(path, problem)


def settle(project: Project, settings: dict[str, Any]) -> Project:
    """Write settings, compose them, and commit everything."""
    for key, value in settings.items():
        project.set(key, value)
    project.do("git", "init", "-q", "-b", "main")
    project.do("git", "config", "user.name", "Test")
    project.do("git", "config", "user.email", "test@example.org")
    project.do("python3", "src", "settings")
    project.commit("a project that has not run")
    return project


def write_project(path: Path) -> Project:
    """Write a project that has adopted the table."""
    project = adopt(path, "shop", shop(), MODELS, "--target=sent_back", "--as-of=placed", "--key=order")
    return settle(project, CHEAPER)


def adopt(path: Path, name: str, table: pd.DataFrame, models: list[str], *options: str) -> Project:
    """Write a project that has adopted a table by this name and asks for it; nothing is composed yet."""
    project, file = copy_tree(path, models, f"conf/problem/{name}.yaml"), f"data/sources/{name}.csv"
    (path / file).parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path / file, index=False)
    project.do("python3", "src", "adopt", file, *options)
    project.edit("conf/config.yaml", r"- problem: \w+", f"- problem: {name}")
    return project


def copy_project(source: Project, target: Path) -> Project:
    """Copy a project, cache and MLflow store included; the store's artifacts get the new place."""

    def copy(old: str, new: str) -> None:
        """Link what is named by its content, and so is never changed: objects of git, and of DVC's cache."""
        (os.link if "/.git/objects/" in old or "/.dvc/cache/files/" in old else shutil.copy2)(old, new)

    shutil.copytree(source.path, target, symlinks=True, copy_function=copy)
    store = target / "mlflow.db"
    if store.exists():
        with sqlite3.connect(store) as old:
            script = "\n".join(old.iterdump()).replace(str(source.path), str(target))
        store.unlink()
        with sqlite3.connect(store) as new:
            new.executescript(script)
    return Project(target, source.problem)
