"""Tables without a time through the real pipeline: split at random, said so, and no date anywhere; and few rows."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scratch import CHEAPER, Project, adopt, copy_project, errors, settle

pytestmark = pytest.mark.slow
MODELS = ["heuristic", "logistic"]
SETTINGS = {key: value for key, value in CHEAPER.items() if not key.startswith("model.")}


def survey(rows: int = 2400) -> pd.DataFrame:
    """Return answers of people, some of one household, sorted by the answer."""
    rng = np.random.default_rng(1)
    home, income, town = (
        rng.integers(0, rows // 2, rows),
        rng.gamma(3, 12, rows).round(1),
        rng.choice(list("ABCDE"), rows),
    )
    yes = rng.random(rows) < 1 / (1 + np.exp(3 - 0.08 * income - (town == "C")))
    table = pd.DataFrame({"household": home, "income": income, "age": rng.integers(18, 90, rows), "town": town})
    return table.assign(answer=np.where(yes, "yes", "no")).sort_values("answer", ignore_index=True)


def birds() -> pd.DataFrame:
    """Return 344 measurements of three kinds of birds, some missing."""
    rng, kind = np.random.default_rng(0), np.repeat([0, 1, 2], [152, 68, 124])
    mean = np.array([[38.8, 18.3, 190, 3700], [48.8, 18.4, 196, 3733], [47.5, 15.0, 217, 5076]])[kind]
    table = pd.DataFrame(
        mean + rng.normal(size=(344, 4)) * [3, 1, 6.5, 430], columns=["length", "depth", "wing", "mass"]
    )
    table = table.round(1).mask(rng.random((344, 4)) < 0.01)
    return table.assign(island=rng.choice(["north", "south"], 344), species=np.array(["A", "C", "G"])[kind])


def texts(project: Project, *places: str) -> str:
    """Return all that people read in these places, without pictures."""
    files = [path for place in places for path in [project.path / place, *(project.path / place).rglob("*")]]
    read = [path.read_text() for path in files if path.is_file() and path.suffix in (".md", ".json", ".html", ".csv")]
    return "\n".join(re.sub(r"<svg.*?</svg>|base64,[\w+/=]+", "", text, flags=re.S) for text in read)


@pytest.fixture(scope="module")
def timeless(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project with a table that is sorted by class and has no time, after a whole run."""
    path = tmp_path_factory.mktemp("timeless") / "project"
    project = adopt(path, "survey", survey(), MODELS, "--target=answer")
    project.set("problem.cluster", "household")
    project.set("split", {"method": "random", "by": "cluster"})
    settle(project, SETTINGS)
    project.do("dvc", "repro", seconds=1200)
    return project


def test_a_table_without_time_becomes_a_service(timeless: Project) -> None:
    assert (timeless.path / "data/bento/bento.yaml").exists()
    counts = timeless.read("data/splits/count.json")
    shares = {name: part["label"]["answer"] for name, part in counts.items()}
    assert (
        set(counts) == {"train", "validation", "test", "production"}
        and max(shares.values()) - min(shares.values()) < 0.1
    )
    table = pd.read_parquet(timeless.path / "data/features/features.parquet")
    assert table[["as_of", "label_time"]].isna().all(axis=None) and "folds" not in table
    assert (table.groupby("cluster")["split"].nunique() == 1).all(), "a household is on one side"


def test_no_date_is_on_card_or_pages(timeless: Project) -> None:
    said = texts(timeless, "data/reports", "data/champion", "data/backtest", "data/quality", "data/examples")
    assert not re.findall(r"\b(?:19|20)\d\d-\d\d|\bNaT\b|January", said)
    everywhere = ["data/champion/card.md", "data/reports/index.html", "data/reports/scope/promise.html"]
    everywhere += [
        "data/reports/data/split.html",
        "data/reports/evaluate/evaluate.html",
        "data/reports/select/backtest.html",
    ]
    assert [place for place in everywhere if "nothing about next month" not in texts(timeless, place)] == []
    assert "nothing about next month" in timeless.do("python3", "src", "summary").stdout.replace("\n", " ")
    assert "later than all that the models have seen" not in texts(timeless, "data/reports/index.html")


def test_groups_on_both_sides_are_found(timeless: Project, tmp_path: Path) -> None:
    project = copy_project(timeless, tmp_path / "project")
    project.set("split", {"method": "random", "by": "row"})
    done = project.run("dvc", "repro", "leakage")
    assert done.returncode != 0 and "leakage: groups: cluster" in errors(done)[0] and "by: cluster" in errors(done)[0]


def test_few_rows_become_a_service(tmp_path: Path) -> None:
    project = settle(adopt(tmp_path / "project", "birds", birds(), [*MODELS, "network"], "--target=species"), SETTINGS)
    assert project.read("data/settings/split.json") == {"method": "cross", "folds": 5, "repeats": 3, "test": 0.25}
    project.do("dvc", "repro", "bento", "diagnose@logistic", "audit", "backtest", "quality", seconds=1200)
    table = pd.read_parquet(project.path / "data/features/features.parquet")
    train, board = table[table.split == "train"], project.read("data/selection/leaderboard.json")
    assert len(table) == 344 and set(table.split) == {"train", "test"} and train.folds.map(len).eq(3).all()
    assert {row["rows"] for row in board["models"]} == {len(train)}, "all of training is judged, each row once"
    logistic = next(row for row in board["models"] if row["model"] == "logistic")
    assert logistic["accuracy"]["low"] > 0.85 and 0 < logistic["accuracy"]["high"] - logistic["accuracy"]["low"] < 0.15
    test = project.read("data/selection/champion/choice.json")["test"]
    assert test["rows"] == 86 and abs(test["accuracy"]["value"] - logistic["accuracy"]["value"]) < 0.1
    assert "cross-validation" in (project.path / "data/champion/card.md").read_text()
    assert project.read("data/diagnosis/logistic/report.json")["rows"] == len(train)
    assert "no back-test" in project.read("data/backtest/none.json")["why"]
