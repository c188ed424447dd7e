"""`fieldbook retrain` and `fieldbook policies` in a project that has adopted a table."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from scratch import Project, errors

pytestmark = pytest.mark.slow

WATCHED = ("conf", "data/champion", "data/selection", "data/models", "params.yaml", "dvc.lock")


@pytest.fixture
def months(project: Project) -> Project:
    """Return the project with windows that fit its hundred days."""
    project.set("retraining", {"window": {"train": 60, "validation": 20, "test": 7}})
    project.do("python3", "src", "settings")
    project.commit("short windows")
    return project


def models(project: Project) -> list[str]:
    """Return what lies in the folder of models, but for the states."""
    folder = project.path / "models"
    return sorted(path.name for path in folder.iterdir() if path.name != "states") if folder.exists() else []


def test_a_challenger_is_made_once_and_the_workspace_is_left_alone(months: Project) -> None:
    months.edit("conf/continual.yaml", r"look: \d+", "look: 3")  # somebody works on
    before, aliases = months.files(*WATCHED), months.aliases()
    first = months.do("python3", "src", "retrain", "--at", "2024-04-05")
    assert "no change of conf/continual.yaml (1 changed)" in first.stdout
    assert not [path for path in (months.path / "tmp/retrain").iterdir()] and "[4/" in first.stdout
    (version,) = models(months)
    manifest = months.read(f"models/{version}/manifest.json")
    assert manifest["version"] == version != months.read("data/champion/manifest.json")["version"]
    assert manifest["model"] == months.read("data/champion/manifest.json")["model"]
    (name,) = months.do("dvc", "exp", "list", "--name-only").stdout.split()
    again = months.do("python3", "src", "retrain", "--at", "2024-04-05")
    assert "it was there already" in again.stdout and "Running stage" not in again.stdout
    assert months.do("dvc", "exp", "list", "--name-only").stdout.split() == [name] and models(months) == [version]
    assert months.files(*WATCHED) == before and months.aliases() == aliases
    assert months.read(f"models/states/{version}.json")["until"] == "2024-03-09"
    lineage = json.loads(months.do("python3", "src", "lineage", manifest["lineage"]["id"]).stdout)
    assert lineage["model"] == manifest["model"]


def test_killed_it_ends_whole_and_leaves_nothing_that_hinders_the_next(months: Project) -> None:
    head, before = months.do("git", "rev-parse", "HEAD").stdout, months.files(*WATCHED)
    command = ["python3", "src", "retrain", "--at", "2024-04-12"]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=months.path, env=months.environment(), **pipes) as process:
        assert process.stdout and any("leakage" in line for line in process.stdout)
        assert at_work(months)
        process.kill()
    left, until = at_work(months), time.monotonic() + 20
    while left and time.monotonic() < until:
        time.sleep(0.2)
        left = at_work(months)
    assert not left and models(months) == [] and months.files(*WATCHED) == before
    assert months.do("git", "rev-parse", "HEAD").stdout == head and not months.do("git", "status", "-s").stdout
    months.do(*command)
    assert len(models(months)) == 1 and not list((months.path / "tmp/retrain").iterdir())


def at_work(project: Project) -> list[int]:
    """Return the processes that run in the project's folder or below it."""
    result = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and Path(os.readlink(entry / "cwd")).is_relative_to(project.path):
                result.append(int(entry.name))
        except OSError:
            continue  # ended meanwhile, or another's
    return result


def test_it_goes_on_from_the_champion_and_says_so_in_its_settings(months: Project) -> None:
    months.do("python3", "src", "retrain", "--at", "2024-04-05", "--stateful")
    (version,) = models(months)
    settings = months.read(f"models/{version}/manifest.json")["settings"]
    assert settings["_target_"] == "fieldbook.continual.stateful.resumed"
    own = months.read("data/champion/manifest.json")["version"]
    state = months.read(f"models/states/{own}.json")
    assert (settings["state"], settings["expected"]) == (f"tmp/states/{own}.joblib", state["digest"])


def test_what_the_gate_rejects_is_told_in_a_line_and_put_nowhere(months: Project) -> None:
    months.set("scope.framings", _strict(months))
    months.do("python3", "src", "settings")
    months.commit("nobody can keep this")
    done = months.run("python3", "src", "retrain", "--at", "2024-04-05")
    (told,) = errors(done)
    assert done.returncode == 1 and "no model passes every limit" in told and "0.999" in told
    assert models(months) == []


def _strict(project: Project) -> dict[str, object]:
    """Return the framings of the problem with a limit that no model keeps."""
    framings = project.read(project.problem)["scope"]["framings"]
    for framing in framings.values():
        framing["limits"] = [{"metric": "roc_auc", "at_least": 0.999, "why": "a test"}]
    return framings


def test_policies_are_compared_on_an_adopted_table(months: Project) -> None:
    months.set("retraining", {"window": {"train": 60, "validation": 7, "test": 3}})
    months.do("python3", "src", "settings")
    months.do("python3", "src", "policies")
    first = months.files("logs/policies")
    record = months.read("logs/policies/policies.json")
    names = [row["policy"] for row in record["policies"]]
    assert names[0] == "never" and "by cost" not in names, "nobody has said what a retraining costs"
    costs = {row["policy"]: row["cost"]["value"] for row in record["policies"]}
    assert all(costs["oracle"] <= costs[name] for name in ("never", "monthly"))
    for path in sorted((months.path / "tmp/policies").iterdir())[::3]:
        path.unlink()  # as after a kill: what is missing is made again, and comes out the same
    months.do("python3", "src", "policies")
    record = "logs/policies/policies.json"
    assert months.files(record)[record] == first[record]
