"""`fieldbook retrain` and `fieldbook policies` in a project that has adopted a table."""

from __future__ import annotations

import json

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
    before, aliases = months.files(*WATCHED), months.aliases()
    months.do("python3", "src", "retrain", "--at", "2024-04-05")
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
