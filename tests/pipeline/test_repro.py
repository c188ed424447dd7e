"""`dvc repro`: what an edit of conf/ runs again, and what it leaves alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

import pytest
from scratch import COMPUTED, MODELS, ROOT, Project, Run, ran, told

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def edited(make: Callable[[], Project]) -> tuple[Project, Run]:
    """Return a project in which a losing model got another setting, and what the repro said. Read it only."""
    project = make()
    assert project.read("data/selection/leaderboard.json")["champion"] != "heuristic"
    project.edit("conf/model/heuristic.yaml", r"threshold: .*", "threshold: 20")
    return project, project.do("dvc", "repro", "bento", "track")


def test_the_first_run_runs_everything_once(base: Project) -> None:
    found = [line.removeprefix("Running stage '")[:-2] for line in base.log.splitlines() if line.startswith("Running")]
    assert sorted(set(found) - {"scope"}) == sorted(COMPUTED)
    assert len(found) == len(set(found))


def test_the_first_run_keeps_to_its_folder(base: Project) -> None:
    assert (base.path / "mlflow.db").exists() and (base.path / "mlruns").is_dir()
    store = (base.path / "mlflow.db").read_bytes()
    assert str(base.path / "mlruns").encode() in store
    assert str(ROOT / "mlruns").encode() not in store
    assert base.do("git", "status", "--short").stdout == "", "the run leaves files that git neither has nor ignores"


def test_nothing_changed_and_nothing_runs(base: Project, project: Project) -> None:
    done = project.do("dvc", "repro", "bento", "track")
    assert ran(done) == []
    assert project.lock() == base.lock()


def test_an_edit_of_the_fallback_runs_that_model_the_choice_and_the_package(edited: tuple[Project, Run]) -> None:
    """Of the other models nothing runs again. The heuristic is in the Bento: it answers when the champion fails."""
    assert sorted(ran(edited[1])) == [
        "bento",
        "evaluate@heuristic",
        "package",
        "scope",
        "select",
        "track",
        "train@heuristic",
    ]


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
    assert len(verdicts) > len(COMPUTED) and " 0 different" in verdicts[-1]
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


def test_a_comment_runs_nothing_but_scope(base: Project, project: Project) -> None:
    with (project.path / "conf/model/boosting.yaml").open("a") as file:
        file.write("# a remark\n")
    assert ran(project.do("dvc", "repro", "bento", "track")) == ["scope"]
    before, after = base.lock(), project.lock()
    assert {name for name in before if before[name] != after[name]} == {"scope"}


def test_going_back_restores_and_trains_nothing(base: Project, project: Project) -> None:
    first, aliases = project.do("git", "rev-parse", "HEAD").stdout.strip(), project.aliases()
    champion = base.read("data/selection/leaderboard.json")["champion"]
    assert champion == "logistic", "this test edits the champion; with these data it should be the logistic regression"
    project.edit("conf/model/logistic.yaml", r"C: [\d.]+", "C: 0.02")
    project.do("dvc", "repro", "track")
    assert project.figure(champion) != base.figure(champion)
    assert project.aliases()["champion"] != aliases["champion"]
    project.commit("another champion")

    project.do("git", "checkout", "-q", first)
    done = project.do("dvc", "repro", "bento", "track")
    assert set(ran(done)) <= {"scope", "track"}, (
        "what is in git, and what must move aliases; the rest comes from the cache"
    )
    assert project.lock() == base.lock()
    assert project.files("data") == base.files("data")
    assert project.aliases() == aliases, "the aliases of MLflow's registry are those of the other commit"
    assert len(project.digests()) == len(set(project.digests())) == len(MODELS) + 1


def test_a_new_file_is_a_new_model(base: Project, project: Project) -> None:
    text = (project.path / "conf/model/logistic.yaml").read_text()
    (project.path / "conf/model/extra.yaml").write_text(text.replace("logistic:", "extra:", 1))
    project.edit("conf/model/extra.yaml", r"C: [\d.]+", "C: 0.02")
    stopped = project.run("dvc", "repro", "select")
    assert stopped.returncode != 0 and ran(stopped) == ["scope"], stopped.stdout
    assert len(told(stopped)) == 1 and "run `dvc repro` once more" in told(stopped)[0]

    done = project.do("dvc", "repro", "select")
    assert sorted(set(ran(done)) - {"scope"}) == [
        "evaluate@extra",
        "select",
        "train@extra",
    ]
    assert project.figure("extra") != base.figure("logistic")
    board = project.read("data/selection/leaderboard.json")["models"]
    assert sorted(row["model"] for row in board) == sorted([*MODELS, "extra"])


def test_a_deleted_file_is_a_model_less(project: Project) -> None:
    (project.path / "conf/model/heuristic.yaml").unlink()
    stopped = project.run("dvc", "repro", "select")
    assert stopped.returncode != 0 and ran(stopped) == ["scope"], stopped.stdout
    assert len(told(stopped)) == 1 and "run `dvc repro` once more" in told(stopped)[0]

    done = project.do("dvc", "repro", "select")
    assert sorted(set(ran(done)) - {"scope"}) == ["select"]
    board = project.read("data/selection/leaderboard.json")["models"]
    assert sorted(row["model"] for row in board) == ["boosting", "logistic"]


@pytest.fixture(scope="module")
def shrunk(make: Callable[[], Project]) -> tuple[Project, Run]:
    """Return a project that lost a model, composed and then reproduced once, and what the repro said. Read it only."""
    project = make()
    (project.path / "conf/model/heuristic.yaml").unlink()
    project.do("python3", "src", "scope")
    return project, project.do("dvc", "repro", "select")


def test_composing_first_makes_one_repro_enough(shrunk: tuple[Project, Run]) -> None:
    assert ran(shrunk[1]) == ["scope", "select"]


def test_what_a_deleted_model_left_is_gone(shrunk: tuple[Project, Run]) -> None:
    """Else `select` depends on files that a fresh clone does not have, and dvc.lock is another one there."""
    for folder in ("data/models", "data/graphs", "data/evaluation"):
        left = sorted(path.name for path in (shrunk[0].path / folder).iterdir() if path.is_dir())
        assert left == ["boosting", "logistic"]


def test_verify_does_not_ask_for_what_a_deleted_model_left(shrunk: tuple[Project, Run]) -> None:
    project = shrunk[0]
    for folder in ("data/models", "data/graphs", "data/evaluation"):  # what a fresh clone does not get
        shutil.rmtree(project.path / folder / "heuristic", ignore_errors=True)
    done = project.run("python3", "src", "verify")
    assert told(done) == []


def test_a_lineage_id_leads_back_to_the_run(base: Project) -> None:
    """What the prediction log carries is enough to find commit, settings and figures; a stranger's id is told so."""
    manifest = json.loads((base.path / "data/champion/manifest.json").read_text())
    found = json.loads(base.do("python3", "src", "lineage", manifest["lineage"]["id"]).stdout)
    assert found["model"] == manifest["model"] and len(found["commit"]) == 40
    assert found["figures"]["roc_auc.value"] == manifest["metrics"]["validation"]["roc_auc"]["value"]
    stranger = base.run("python3", "src", "lineage", "0123456789abcdef")
    assert stranger.returncode == 1 and "has the lineage id '0123456789abcdef'" in told(stranger)[0]
