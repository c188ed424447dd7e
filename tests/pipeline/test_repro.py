"""`dvc repro`: what an edit of conf/ runs again, and what it leaves alone."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from scratch import MODELS, ROAD, ROOT, Project, Run, errors, of_model, ran, stages

SECOND = pytest.mark.slow
# A setting of the model that makes it another one: whichever is champion, it can be edited.
ANOTHER = {"boosting": ("estimator.max_iter", 5), "logistic": ("estimator.C", 0.02)}


@pytest.fixture(scope="module")
def edited(make: Callable[[], Project]) -> tuple[Project, Run]:
    """Return a project in which a losing model got another setting, and what the repro said. Read it only."""
    project = make()
    assert project.read("data/selection/leaderboard.json")["champion"] != "heuristic"
    project.set("heuristic.threshold", 3)
    return project, project.do("dvc", "repro", *ROAD)


def test_the_first_run_runs_everything_once(base: Project) -> None:
    names = re.findall(r"(?m)^Running stage '(.+)'", base.log)
    assert len(names) == len(set(names))
    assert {*names, "settings"} == stages(base.path, *ROAD).keys()  # composing by hand came first; DVC may know that


def test_the_first_run_keeps_to_its_folder(base: Project) -> None:
    assert (base.path / "mlflow.db").exists() and (base.path / "mlruns").is_dir()
    store = (base.path / "mlflow.db").read_bytes()
    assert str(base.path / "mlruns").encode() in store
    assert str(ROOT / "mlruns").encode() not in store
    assert base.do("git", "status", "--short").stdout == "", "the run leaves files that git neither has nor ignores"


def test_nothing_changed_and_nothing_runs(base: Project, project: Project) -> None:
    done = project.do("dvc", "repro", *ROAD)
    assert ran(done) == []
    assert project.lock() == base.lock()


def test_an_edit_of_the_fallback_runs_that_model_the_choice_and_the_package(
    base: Project, edited: tuple[Project, Run]
) -> None:
    """Of the other models nothing runs again. The heuristic is in the Bento: it answers when the champion fails."""
    again = {"settings", "code", *of_model(base, "heuristic", *ROAD), "select", "package", "track", "bento"}
    assert sorted(ran(edited[1])) == sorted(again)


def test_a_new_model_is_a_new_run_in_mlflow(base: Project, edited: tuple[Project, Run]) -> None:
    before, after = base.read("data/tracking.json"), edited[0].read("data/tracking.json")
    assert [name for name in MODELS if before["digests"][name] != after["digests"][name]] == ["heuristic"]
    assert edited[0].digests() == sorted([*before["digests"].values(), after["digests"]["heuristic"]])


def test_verify_tells_what_differs_from_the_commit(edited: tuple[Project, Run]) -> None:
    done = edited[0].run("python3", "src", "verify")
    assert done.returncode == 1, done.stdout
    different = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("DIFFERENT")]
    assert "data/evaluation/heuristic/metrics.json" in different
    assert not [path for path in different if "boosting" in path]


def test_verify_accepts_the_committed_run(base: Project) -> None:
    done = base.run("python3", "src", "verify")
    assert done.returncode == 0, done.stdout
    verdicts = done.stdout.strip().splitlines()
    assert len(verdicts) > len(stages(base.path, *ROAD)) and " 0 different" in verdicts[-1]
    assert {line.split()[0] for line in verdicts[:-2]} == {"equal"}


def test_metrics_diff_shows_the_edit(edited: tuple[Project, Run]) -> None:
    shown = edited[0].do("dvc", "metrics", "show").stdout
    assert all(f"data/evaluation/{name}/metrics.json" in shown.replace("\\", "/") for name in MODELS)
    changed = edited[0].do("dvc", "metrics", "diff", "--md").stdout
    assert "data/evaluation/heuristic/metrics.json" in changed and "boosting/metrics.json" not in changed


def test_plots_are_one_page(edited: tuple[Project, Run]) -> None:
    edited[0].do("dvc", "plots", "show", "-o", "plots")
    page = (edited[0].path / "plots/index.html").read_text()
    assert all(f"{curve}: {name}" in page for curve in ("at most x)", "Calibration", "Confusion") for name in MODELS)


def test_a_comment_runs_nothing_but_settings(base: Project, project: Project) -> None:
    with (project.path / "conf/model/boosting.yaml").open("a") as file:
        file.write("# a remark\n")
    assert ran(project.do("dvc", "repro", *ROAD)) == ["settings"]
    before, after = base.lock(), project.lock()
    assert {name for name in before if before[name] != after[name]} == {"settings"}


def add_setting(project: Project, section: str) -> str:
    """Give the type of a section one more field, with a default; return the module, which the type must stand in."""
    places = [
        (path, node)
        for path in sorted((project.path / "src/fieldbook").rglob("*.py"))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name.lower() == section and "Strict" in ast.unparse(node.bases[0])
    ]
    ((path, node),) = places
    lines = path.read_text().splitlines(keepends=True)
    lines.insert(node.end_lineno or 0, "    novelty: int = 0\n")
    path.write_text("".join(lines))
    return str(path.relative_to(project.path))


@pytest.mark.parametrize("section", ["leakage", pytest.param("missing", marks=SECOND)])
def test_a_new_setting_runs_its_own_stage_and_nothing_is_trained(project: Project, section: str) -> None:
    """Law 10: a type gets a field, and conf/ says it. Who has neither the code nor the setting does not run again."""
    project.do("dvc", "repro", section)  # the road has been run, a study beside it has not
    module = add_setting(project, section)
    project.set(f"{section}.novelty", 1)
    done = project.do("dvc", "repro", section, *ROAD)
    read = {f"data/settings/{section}.json", *(str(folder) for folder in [Path(module), *Path(module).parents])}
    concerned = {name for name, stage in project.lock().items() if read & {dep["path"] for dep in stage["deps"]}}
    assert {"settings", section} <= set(ran(done)) <= {"settings", "code", *concerned}
    assert not [name for name in ran(done) if name.startswith("train@")]
    assert project.read(f"data/settings/{section}.json")["novelty"] == 1


@SECOND
def test_going_back_restores_and_trains_nothing(base: Project, project: Project) -> None:
    first, aliases = project.do("git", "rev-parse", "HEAD").stdout.strip(), project.aliases()
    champion = base.read("data/selection/leaderboard.json")["champion"]
    key, value = ANOTHER[champion]
    project.set(f"model.{champion}.{key}", value)
    project.do("dvc", "repro", "track")
    assert project.figure(champion) != base.figure(champion)
    assert project.aliases() != aliases
    project.commit("another champion")

    project.do("git", "checkout", "-q", first)
    done = project.do("dvc", "repro", *ROAD)
    assert set(ran(done)) <= {"settings", "code", "track"}, (
        "what is in git, and what must move aliases; the rest comes from the cache"
    )
    assert project.lock() == base.lock()
    assert project.files("data") == base.files("data")
    assert project.aliases() == aliases, "the aliases of MLflow's registry are those of the other commit"
    assert len(project.digests()) == len(set(project.digests())) == len(MODELS) + 1


@SECOND
def test_a_new_file_is_a_new_model(base: Project, project: Project) -> None:
    text = (project.path / "conf/model/logistic.yaml").read_text()
    (project.path / "conf/model/extra.yaml").write_text(text.replace("logistic:", "extra:", 1))
    project.set("model.extra.estimator.C", 0.02)
    stopped = project.run("dvc", "repro", "select")
    assert stopped.returncode != 0 and ran(stopped) == ["settings"], stopped.stdout
    assert len(errors(stopped)) == 1 and "run `dvc repro` once more" in errors(stopped)[0]

    done = project.do("dvc", "repro", "select")
    assert sorted(set(ran(done)) - {"settings", "code"}) == sorted([*of_model(project, "extra", "select"), "select"])
    assert project.figure("extra") != base.figure("logistic")
    board = project.read("data/selection/leaderboard.json")["models"]
    assert sorted(row["model"] for row in board) == sorted([*MODELS, "extra"])


@SECOND
def test_a_deleted_file_is_a_model_less(project: Project) -> None:
    (project.path / "conf/model/heuristic.yaml").unlink()
    stopped = project.run("dvc", "repro", "select")
    assert stopped.returncode != 0 and ran(stopped) == ["settings"], stopped.stdout
    assert len(errors(stopped)) == 1 and "run `dvc repro` once more" in errors(stopped)[0]

    done = project.do("dvc", "repro", "select")
    assert sorted(set(ran(done)) - {"settings", "code"}) == ["select"]
    board = project.read("data/selection/leaderboard.json")["models"]
    assert sorted(row["model"] for row in board) == ["boosting", "logistic"]


@SECOND
def test_composing_first_makes_one_repro_enough_and_leaves_nothing(project: Project) -> None:
    """What a deleted model left is gone: else `select` depends on files that a fresh clone does not have."""
    (project.path / "conf/model/heuristic.yaml").unlink()
    project.do("python3", "src", "settings")
    assert ran(project.do("dvc", "repro", "select")) == ["settings", "code", "select"]
    folders = [project.path / "data" / name for name in ("models", "evaluation")]
    for folder in folders:
        assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["boosting", "logistic"]
        shutil.rmtree(folder / "heuristic", ignore_errors=True)  # what a fresh clone does not get
    assert errors(project.run("python3", "src", "verify")) == []


def test_a_lineage_id_leads_back_to_the_run(base: Project) -> None:
    """What the prediction log carries is enough to find commit, settings and figures; a stranger's id is told so."""
    manifest = json.loads((base.path / "data/champion/manifest.json").read_text())
    origin = json.loads(base.do("python3", "src", "lineage", manifest["lineage"]["id"]).stdout)
    assert origin["model"] == manifest["model"] and len(origin["commit"]) == 40
    assert origin["figures"]["roc_auc.value"] == manifest["metrics"]["validation"]["roc_auc"]["value"]
    stranger = base.run("python3", "src", "lineage", "0123456789abcdef")
    assert stranger.returncode == 1 and "has the lineage id '0123456789abcdef'" in errors(stranger)[0]
