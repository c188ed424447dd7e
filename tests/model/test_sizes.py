"""Models of tables that nobody has seen: settings follow the rows, words and categories go all the way to the graph."""

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from pydantic import TypeAdapter
from sklearn.ensemble import HistGradientBoostingClassifier

from fieldbook.features.derive import Derived, derive
from fieldbook.model.parity import convert
from fieldbook.model.rule import best_rule
from fieldbook.model.sample import AllRows
from fieldbook.model.train import Recipe, learn, predict
from fieldbook.scope.framings import example

pytestmark = pytest.mark.slow  # the notebooks' examples are in the first tier

CONF = Path(__file__).parents[2] / "conf/model"
FREE = {"objective": "log_loss", "costs": {"unit": "mistakes", "given": False, "false_alarm": 1, "missed": 1}}


def recipe_of(name: str, column: str = "", threshold: float | None = None, task: Any = None) -> Recipe:
    """Return the recipe of a model of `conf/model/`, with a rule of thumb of one's own."""
    settings = yaml.safe_load((CONF / f"{name}.yaml").read_text().replace("${seed}", "7"))[name]
    if name == "heuristic":
        settings |= {"only": [column], "estimator": settings["estimator"] | {"threshold": threshold}}
    return Recipe(name, settings, task or example(**FREE), AllRows(), seed=7)


def table_of(rows: int, seed: int = 0) -> pd.DataFrame:
    """Return rows in which two numbers and a category tell something, and one label in four is yes."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({name: rng.normal(size=rows).astype("float32") for name in ("age", "${x}", "noise")})
    table["kind, 'odd\" ä"] = pd.array(rng.choice(["shoes", "books", "tools"], rows), dtype="str")
    told = table.age + table["${x}"] + (table["kind, 'odd\" ä"] == "tools") + rng.logistic(size=rows)
    return table.assign(label=(told > np.quantile(told, 0.75)).astype(float), cluster=[str(row) for row in range(rows)])


@pytest.mark.parametrize("name", ["heuristic", "logistic", "boosting", "network"])
def test_few_rows_are_enough_to_learn_something(name: str) -> None:
    """On 192 rows every model is better than answering the same for everybody; its graph says the same."""
    table, held = table_of(192), table_of(2000, seed=1)
    numeric, categorical = ["age", "${x}", "noise"], ["kind, 'odd\" ä"]
    recipe = recipe_of(name, "${x}", 0.5)
    model = learn(recipe, table, numeric, categorical)
    losses = recipe.task.penalty(predict(model, held[numeric + categorical], recipe.task), held.label.to_numpy())
    prior = recipe.task.penalty(np.full((2000, 1), table.label.mean()), held.label.to_numpy())
    assert losses.mean() < prior.mean(), (losses.mean(), prior.mean())
    graph, record = convert(model, held.head(300), numeric, categorical, recipe.task, 1e-5)
    assert graph is not None, record["fault"]


def test_boosting_is_as_good_as_the_defaults_of_the_library() -> None:
    """Settings for fewer rows are chosen within training, in little time, and beat those nobody has thought about."""
    table, held = table_of(2900), table_of(3000, seed=1)
    numeric, recipe = ["age", "${x}", "noise"], recipe_of("boosting")
    began = perf_counter()
    ours = predict(learn(recipe, table, numeric, []), held[numeric], recipe.task)
    took = perf_counter() - began
    usual = HistGradientBoostingClassifier(random_state=0).fit(table[numeric], table.label)
    theirs = usual.predict_proba(held[numeric])[:, 1:]
    loss = lambda outputs: recipe.task.penalty(outputs, held.label.to_numpy()).mean()
    assert loss(ours) < loss(theirs) and took < 30, "some 1.5 s alone on a core"


@pytest.mark.parametrize("name", ["majority", "heuristic", "logistic", "boosting"])
def test_a_table_of_words_alone_can_be_learnt_and_served(name: str) -> None:
    """All columns are categories, one of them of many values: every model has a graph that says what it says."""
    rng, rows = np.random.default_rng(0), 3000
    table = pd.DataFrame(
        {"town": [f"town {i}" for i in rng.integers(0, 600, rows)], "kind": rng.choice(list("abc"), rows)}
    )
    worth = dict(zip(table.town.unique(), rng.normal(size=600)))
    told = table.town.map(worth) + (table.kind == "a") + rng.logistic(size=rows)
    table = table.astype("str").assign(label=(told > 0).astype(float), cluster=np.arange(rows).astype(str))
    rule = best_rule({key: table[key].to_numpy(object) for key in ("town", "kind")}, table.label.to_numpy(), False)
    assert rule["threshold"] is None
    recipe, names = recipe_of(name, **rule), ["town", "kind"]
    model = learn(recipe, table, [], names)
    odd = table.head(500).copy()
    odd.loc[::7, names] = "a word never seen"
    graph, record = convert(model, odd, [], names, recipe.task, 1e-5)
    assert graph is not None and record["size_kib"] < 200, record


def test_words_of_a_text_are_the_same_for_one_row_and_for_many() -> None:
    """Training computes a bag of words for all rows, the service for one: the same to the bit, and in no time."""
    rules = TypeAdapter(dict[str, Derived]).validate_python({"said": {"words": "text", "buckets": 512}})
    rng = np.random.default_rng(0)
    words = np.array(["gut", "schlecht", "Ärger", "ＷＩＤＥ", "don't", "東京", "5,50", "sehr", "SEHR", "sehr!"], object)
    texts = np.array([" ".join(rng.choice(words, rng.integers(0, 60))) for _ in range(300)], object)
    many = derive({"text": texts}, rules)
    for row in range(300):
        one = derive({"text": texts[[row]]}, rules)
        assert all(one[name][0] == many[name][row] for name in many if name != "text"), texts[row]
    began = perf_counter()
    for row in range(100):
        derive({"text": texts[[row]]}, rules)
    assert (perf_counter() - began) / 100 < 0.005, "some 0.2 ms alone on a core"
