"""A tick that is killed at any moment is made good by the next, and nothing is done twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
import yaml
from logs import celsius, lines

from fieldbook.continual.diary import diary, note, noted
from fieldbook.continual.tick import tick
from fieldbook.experiment.change import history
from fieldbook.experiment.models import put, versions, whole
from fieldbook.experiment.registry import aliases, registered
from fieldbook.monitor.alert import alerts
from fieldbook.serve.planted import challenger

pytestmark = pytest.mark.slow
DAYS, ROWS, KILLS = 10, 200, 100
CONTEXT = multiprocessing.get_context("forkserver")
LATER = ["mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store", "sklearn.ensemble"]
LATER += ["scipy.stats", "matplotlib.figure", "matplotlib.backends.backend_svg", "duckdb", "pyarrow.parquet"]
CONTEXT.set_forkserver_preload(["fieldbook.continual.tick", *LATER])  # what is imported is no part of what is tried


class Place:
    """A project with a log that grows by a day, and a model that is learnt every other day.

    Attributes
    ----------
    tried : versions of the models that are learnt, in order.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder, self.logs, self.models = root, folder, folder / "logs", folder / "models"
        shutil.copytree(root / "data/settings", folder / "data/settings")
        (folder / "conf/deploy").mkdir(parents=True)
        shutil.copy(root / "conf/deploy/runbook.md", folder / "conf/deploy")
        shutil.copytree(root / "data/selection/champion", folder / "data/selection/champion")
        self.set(
            "monitor",
            windows={"now": {"hours": 24, "most": 4}},
            sure={"replicates": 20, "confidence": 0.95, "bins": 10, "metrics": []},
        )
        rules = {name: rule for name, rule in self.get("rules").items() if rule.get("over") == ["now"]}
        (folder / "data/settings/rules.json").write_text(json.dumps(rules))
        self.set("trigger", days=None, labels=None, alerts=[], bound=None, cost=False)
        self.set("rollout", ramp=[0.01, 0.05, 0.1, 0.25, 0.5], requests=50)
        manifest = put(root / "data/champion", self.models)
        self.champion, self.title, self.task = manifest.version, manifest.name, manifest.framing.task
        how = ["error", "same", "flipped"] * DAYS
        kinds = how[: (DAYS + 1) // 2]
        self.tried = [
            challenger(root / "data/champion", self.models, kind, promise=f"{n}") for n, kind in enumerate(kinds)
        ]
        self.kinds = dict(zip(self.tried, kinds))
        self.register([self.champion, *self.tried])

    def get(self, name: str) -> dict[str, Any]:
        """Return a section of the settings."""
        return json.loads((self.folder / f"data/settings/{name}.json").read_text())

    def set(self, name: str, **values: Any) -> None:
        """Change a section of the settings."""
        (self.folder / f"data/settings/{name}.json").write_text(json.dumps(self.get(name) | values))

    def register(self, named: list[str]) -> None:
        """Let MLflow's store have a run of each model, as stage `track` leaves it."""
        from fieldbook.select.store import open_store

        store = open_store(self.folder)
        import mlflow

        client = mlflow.MlflowClient(store)
        for version in named:
            manifest = json.loads((self.models / version / "manifest.json").read_text())
            run = client.create_run("0", tags={"lineage": manifest["lineage"]["id"], "source": f"file:{self.folder}"})
            client.set_terminated(run.info.run_id)

    def grow(self, day: int, rows: list[dict[str, Any]]) -> str:
        """Write the rows of a day, dealt by the plan that is followed, and outcomes; return when the tick comes."""
        plans, encode = history(self.models), msgspec.json.Encoder().encode_lines
        test = plans[-1].test if plans else None
        today, bare = f"2013-11-{day + 4:02}", ("outcome", "came")
        if self.tried and test is None and day % 2 == 0:
            facts = {"version": self.tried[day // 2], "reasons": ["it is due"], "why": "it has passed the gate"}
            note(self.logs, "learn", today, at=today, **facts)
        made = [self.dealt(n, row, plans[-1].number, test.challenger) if test else row for n, row in enumerate(rows)]
        name = f"{today.replace('-', '')}T000000-1-aaaaaa.jsonl"
        self.logs.mkdir(exist_ok=True)
        shown = [{key: value for key, value in row.items() if key not in bare} for row in made]
        (self.logs / f"predictions-{name}").write_bytes(encode(shown))
        told = [row for row in made if isinstance(row["outcome"], str) and row["came"] is not pd.NaT]
        time = lambda row: f"{row['came']:%Y-%m-%dT%H:%M:%S}.000+00:00"
        came = [{"time": time(row), "request_id": row["request_id"], "outcome": row["outcome"]} for row in told]
        (self.logs / f"feedback-{name}").write_bytes(encode(came))
        return f"2013-11-{day + 5:02}T12:00"

    def dealt(self, n: int, row: dict[str, Any], plan: int, version: str) -> dict[str, Any]:
        """Return a row as the service logs it while a canary is on."""
        mine, kind = n % 2 == 1, self.kinds[version]
        own = {
            "plan": plan,
            "arm": version if mine else "baseline",
            "arm_propensity": 0.01,
            "unit": f"{n}-{row['time']}",
        }
        failed = "error" if mine and kind == "error" else None
        if mine and kind == "flipped":
            share = round(1 - row["probability"], 7)
            own |= {name: told[0] for name, told in self.task.told(np.array([[share]])).items()}
        return row | own | {"failed": failed, "model_ms": 0.4}

    def state(self) -> dict[str, Any]:
        """Return all that ticks have decided."""
        told = [alert.key for alert in alerts(self.logs / "monitor")] if (self.logs / "monitor").is_dir() else []
        return {
            "plans": [path.read_text() for path in sorted((self.models / "plans").glob("*.json"))],
            "diary": {step: noted(self.logs, step) for step in ("learn", "monitor", "plan")},
            "alerts": sorted(told),
            "models": versions(self.models),
            "aliases": registered(self.folder / "mlflow.db", self.title),
            "files": sorted(path.name for path in self.logs.glob("*.*")),
        }


def one(folder: Path, now: str, told: Connection) -> None:
    """Run a tick in this process, and tell each step's line."""
    os.chdir(folder)
    told.send("began")
    tick(now, Path("logs").absolute(), Path("models").absolute(), Path(), told.send)
    told.send("ended")


def run(place: Place, now: str, seconds: float | None = None) -> tuple[list[str], float]:
    """Run a tick in a process of its own, killed after so many seconds; return what it said, and how long it ran."""
    here, there = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=one, args=(place.folder, now, there))
    process.start()
    there.close()
    assert here.recv() == "began"
    began, said = time.monotonic(), []
    if seconds is not None:
        time.sleep(seconds)
        process.kill()
    try:
        while True:
            said.append(here.recv())
    except EOFError:
        process.join()
    return said, time.monotonic() - began


@pytest.fixture(scope="module")
def days(project: Path) -> list[list[dict[str, Any]]]:
    """Return the rows of each day; from the eighth on the temperature comes in degrees Celsius."""
    rows = lines(project, "2013-11-04", f"2013-11-{DAYS + 4:02}", lambda table: celsius(table, "2013-11-11"))
    by_day = [[row for row in rows if row["time"].startswith(f"2013-11-{day + 4:02}")] for day in range(DAYS)]
    return [some[:: max(1, len(some) // ROWS)] for some in by_day]


def test_ticks_that_are_killed_decide_what_others_do(
    project: Path, days: list[list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A hundred ticks are killed, over their whole length; beside them another place whose ticks are left alone."""
    calm, harsh = (Place(project, tmp_path_factory.mktemp(name)) for name in ("calm", "harsh"))
    draw, killed, at = random.Random(11), 0, Counter[str]()
    for day, rows in enumerate(days):
        now = calm.grow(day, rows)
        said, length = run(calm, now)
        assert said[-1] == "ended" and not any("failed:" in line for line in said), said
        assert harsh.grow(day, rows) == now
        due = KILLS * (day + 1) // DAYS
        while killed < due:
            said, _ = run(harsh, now, draw.uniform(0, length))
            if said[-1:] != ["ended"]:
                killed += 1
                at[said[-1].split()[0] if said else "begin"] += 1
            else:  # there is nothing left to do: what is killed now does nothing
                length = min(length, 0.15)
        said, _ = run(harsh, now)
        assert said[-1] == "ended" and not any("failed:" in line for line in said), said
        before = harsh.state()
        said, _ = run(harsh, now)
        assert said[-1] == "ended" and harsh.state() == before, said
    print(f"{killed} killed, the last step done: {dict(at)}")
    mine, theirs = harsh.state(), calm.state()
    assert [json.loads(plan)["number"] for plan in mine["plans"]] == list(range(1, len(mine["plans"]) + 1))
    assert mine["plans"] == theirs["plans"] and len(mine["plans"]) > DAYS // 2
    assert {name: mine[name] for name in ("diary", "alerts", "models", "files")} == {
        name: theirs[name] for name in ("diary", "alerts", "models", "files")
    }
    assert len({*mine["alerts"]}) == len(mine["alerts"]) > 0
    assert mine["aliases"] == theirs["aliases"] == aliases(history(harsh.models))
    for version in versions(harsh.models):
        whole(harsh.models / version)


@pytest.fixture
def bare(project: Path, tmp_path: Path) -> Place:
    """Return a place with a command of its own, as a project's environment has it."""
    place, own = Place(project, tmp_path), tmp_path / ".venv/bin/fieldbook"
    own.parent.mkdir(parents=True)
    command = f'PYTHONPATH="{project}/src" exec "{Path(sys.executable).with_name("fieldbook")}" "$@"'
    own.write_text(f"#!/bin/sh\n{command}\n")
    own.chmod(0o755)
    return place


def test_cron_runs_a_tick(project: Path, bare: Place, days: list[list[dict[str, Any]]]) -> None:
    """The line's command is run as cron runs it: by sh, with hardly any environment."""
    (line,) = [
        line for line in (project / "conf/deploy/tick.cron").read_text().splitlines() if line[:1] not in ("", "#")
    ]
    *times, command = line.split(maxsplit=5)
    minute, *others = times
    assert 0 <= int(minute) < 60 and others == ["*"] * 4 and "/srv/fieldbook" in command and "%" not in command
    bare.grow(0, days[0])
    own = command.replace("/srv/fieldbook", str(bare.folder))
    done = subprocess.run(
        own, shell=True, executable="/bin/sh", cwd="/", env={"HOME": "/", "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
    )
    said = (bare.logs / "tick.out").read_text()
    assert done.returncode == 0, said
    assert f"tries {bare.tried[0]}" in said and len(history(bare.models)) == 1


def test_workflow_runs_a_tick(project: Path, bare: Place, days: list[list[dict[str, Any]]]) -> None:
    """The workflow is one, and its steps' commands do what they say."""
    told = yaml.safe_load((project / "conf/deploy/tick.yaml").read_text())
    times = told[True]  # YAML reads `on` as a truth
    assert times["schedule"][0]["cron"].split()[1:] == ["*"] * 4 and "workflow_dispatch" in times
    assert told["concurrency"]["cancel-in-progress"] is False
    bare.grow(0, days[0])
    for step in told["jobs"]["tick"]["steps"]:
        assert step["working-directory"] == "${{ vars.FIELDBOOK_HOME }}"
        env = {"HOME": "/", "PATH": "/usr/bin:/bin", "GITHUB_STEP_SUMMARY": str(bare.folder / "summary")}
        subprocess.run(["/bin/bash", "-e", "-c", step["run"]], cwd=bare.folder, env=env, check=True)
    summary = [json.loads(line) for line in (bare.folder / "summary").read_text().splitlines()]
    assert summary[-1]["step"] == "plan" and summary[-1]["who"] == "tick"


@pytest.mark.parametrize(
    ("trigger", "price", "said"),
    [
        ({"days": 28}, None, "days old, and 28 are allowed"),
        ({"labels": 100}, None, "labels have become known since, and 100 are enough"),
        ({"alerts": ["unit"]}, None, "the monitor has an open alert: unit"),
        ({"bound": {"metric": "roc_auc", "at_least": 0.9}}, None, "ROC AUC is"),
        ({"bound": {"metric": "rise", "at_most": 0}}, None, "rise is"),
        ({"cost": True}, 1000, "against those held out when it was learnt), and a retraining costs 1,000"),
    ],
    ids=["days", "labels", "alerts", "bound", "rise", "cost"],
)
def test_each_trigger_fires_from_a_tick(
    watched: Place, trigger: dict[str, Any], price: float | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the log and the monitor say makes a retraining due; here it cannot run, and the tick says so."""
    monkeypatch.chdir(watched.folder)
    none = {"days": None, "labels": None, "alerts": [], "bound": None, "cost": False, "rest": 0}
    watched.set("retraining", price=price)
    for settings, due in ((none, False), (none | trigger, True)):
        watched.set("trigger", **settings)
        told: list[str] = []
        assert tick("2013-11-14T12:00", watched.logs, watched.models, Path(), told.append) is not due
        (line,) = [line for line in told if line.startswith("retrain")]
        assert ("it is due, since" in line and said in line) if due else "not due" in line, line


@pytest.fixture(scope="module")
def watched(project: Path, days: list[list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Return a place with a log of days in which nothing is tried, and outcomes are the opposite of what they were."""
    place = Place(project, tmp_path_factory.mktemp("watched"))
    place.tried = []
    words = {place.task.positive: place.task.negative, place.task.negative: place.task.positive}
    for day, rows in enumerate(days):
        place.grow(day, [row | {"outcome": words.get(row["outcome"])} for row in rows])
    return place


def test_a_second_tick_ends_at_once(bare: Place) -> None:
    """While one is at work, another says so and succeeds."""
    from filelock import FileLock

    diary(bare.logs).parent.mkdir(parents=True)
    with FileLock(diary(bare.logs).with_name("lock")):
        done = subprocess.run(
            [bare.folder / ".venv/bin/fieldbook", "tick"], cwd=bare.folder, capture_output=True, text=True
        )
    assert done.returncode == 0 and done.stdout == "tick     another one is at work\n", done
