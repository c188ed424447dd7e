"""The models are as good as they are said to be, and their graphs say the same."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fieldbook.core.section import section
from fieldbook.features.features import read_features
from fieldbook.model.build import build_model
from fieldbook.model.graph import to_graph
from fieldbook.model.parity import parity
from fieldbook.model.train import fit, predict
from fieldbook.scope.framing import Framing
from fieldbook.scope.framings import AnyFraming
from fieldbook.scope.problem import Problem
from fieldbook.select.gate import named

Table = tuple[pd.DataFrame, list[str], list[str]]
MODELS = sorted(path.stem for path in (Path(__file__).parents[3] / "conf/model").glob("*.yaml"))


@pytest.fixture(scope="module")
def board(project: Path) -> dict[str, Any]:
    """Return the leaderboard."""
    return json.loads((project / "data/selection/leaderboard.json").read_text())


@pytest.fixture(scope="module")
def task(project: Path) -> Framing:
    """Return the framing that is asked."""
    return section("task", AnyFraming, project / "data/settings")


def settings_of(name: str, project: Path) -> dict[str, Any]:
    """Return the settings of a model."""
    return section(f"model/{name}", dict[str, Any], project / "data/settings")


@pytest.fixture(scope="module")
def validation(project: Path) -> Table:
    """Return the validation split and the names of its features."""
    return read_features("validation", project / "data/features")


@pytest.fixture(scope="module")
def train(project: Path) -> Table:
    """Return the training split and the names of its features."""
    return read_features("train", project / "data/features")


def test_backtest_reaches_the_reference(project: Path) -> None:
    """Trained on January to June and tested on July to December: AUC 0.735 and Brier 0.1515 at least."""
    table = pd.read_csv(project / "data/backtest/backtest.csv")
    whole = table[table["month"] == "all"].iloc[-1]
    assert whole["rows"] > 160_000
    assert whole["roc_auc"] >= 0.735 and whole["brier"] <= 0.1515


def test_groups_of_features_are_worth_their_place(project: Path) -> None:
    """What was observed beats the timetable alone by a wide margin."""
    table = pd.read_csv(project / "data/backtest/backtest.csv")
    auc = table[table["month"] == "all"].set_index("groups")["roc_auc"]
    assert auc["+ weather"] > auc["+ schedule"] + 0.03 and auc["+ recent_delays"] > auc["+ aircraft"] + 0.02


def test_baselines_stand_where_they_must(board: dict[str, Any]) -> None:
    """The majority class ranks nothing, the rule of thumb ranks something, and the champion beats both clearly."""
    figures = {row["model"]: row for row in board["models"]}
    assert figures["majority"]["roc_auc"]["value"] == 0.5
    assert figures["heuristic"]["roc_auc"]["low"] > 0.55
    champion = figures[board["champion"]]
    for baseline in ("majority", "heuristic"):
        assert champion["expected_cost"]["high"] < figures[baseline]["expected_cost"]["low"]


def test_champion_keeps_the_limits_on_test_too(board: dict[str, Any], manifest: dict[str, Any], task: Framing) -> None:
    """What was promised on validation holds, as a point, on the split nobody chose by."""
    assert manifest["model"] == board["champion"]
    found = named(manifest["metrics"]["test"])
    limits = [limit for limit in task.limits if limit.metric in found]  # a size is the same on any split
    assert limits
    for limit in limits:
        value = found[limit.metric]["value"]
        assert limit.at_least is None or value >= limit.at_least, limit
        assert limit.at_most is None or value <= limit.at_most, limit


@pytest.mark.slow
@pytest.mark.parametrize("framing", ["punctuality", "minutes", "trouble"])
def test_every_model_learns_every_framing(
    project: Path, problem: Problem, raw: dict[str, pd.DataFrame], train: Table, framing: str
) -> None:
    """Each model file serves four ways of asking: it beats the same answer for all, and its graph agrees."""
    task = section("scope/framings", dict[str, AnyFraming], project / "data/settings")[framing]
    table, numeric, categorical = train
    rows = table.iloc[:: len(table) // 8_000].drop(columns="label")
    rows = rows.merge(problem.examples(raw, framing)[["example_id", "label"]], on="example_id").dropna(subset="label")
    past, later = rows.iloc[:-2_000], rows.iloc[-2_000:]
    cost = {}
    for name in MODELS:
        settings = settings_of(name, project)
        model = fit(name, build_model(name, settings, numeric, categorical, task), past, numeric + categorical, task)
        graph = to_graph(model, len(numeric), len(categorical)).SerializeToString()
        assert parity(model, graph, later.reset_index(drop=True), numeric, categorical, task, 1e-5) < 1e-5, name
        outputs = predict(model, later[numeric + categorical], task)
        cost[name] = task.cost(outputs, later["label"].to_numpy()).mean()
    assert min(cost, key=cost.__getitem__) not in ("majority", "heuristic"), cost


def test_shuffled_labels_teach_nothing(project: Path, validation: Table, task: Framing) -> None:
    """A model fitted to shuffled labels ranks at random: the evaluation does not flatter."""
    from sklearn.metrics import roc_auc_score

    table, numeric, categorical = validation
    rows = table[table["label"].notna()].sample(8_000, random_state=1).sort_values("as_of")
    past, future = rows.iloc[:5_000], rows.iloc[5_000:]
    shuffled = past.assign(label=past["label"].sample(frac=1, random_state=2).to_numpy())
    model = build_model("logistic", settings_of("logistic", project), numeric, categorical, task)
    model = fit("logistic", model, shuffled, numeric + categorical, task)
    outputs = predict(model, future[numeric + categorical], task)
    assert abs(roc_auc_score(future["label"], outputs[:, 0]) - 0.5) < 0.05
