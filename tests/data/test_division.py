"""Tables without a time, and splits that hang on nothing but names: order, groups, classes, and no invented date."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter

from fieldbook.data.division import Cross, Random, Split
from fieldbook.data.draw import folds
from fieldbook.data.label import check_examples
from fieldbook.data.propose import propose_split
from fieldbook.data.split import assign
from fieldbook.examine.lookahead import future
from fieldbook.examine.toy import LIMITS
from fieldbook.problems.table import Tabular
from fieldbook.scope.column import Column, Table
from fieldbook.scope.framings import Multiclass, example

pytestmark = pytest.mark.slow  # the notebooks' examples are in the first tier

THREE: Multiclass = example("multiclass")
SETTINGS = [Random(method="random"), Random(method="random", by="row", production=0), Cross(method="cross")]
every_way = pytest.mark.parametrize("settings", SETTINGS, ids=["by cluster", "by row", "cross"])
many = pytest.mark.parametrize("seed", range(4))


def rows(seed: int, rare: int = 9) -> pd.DataFrame:
    """Return examples without a time, sorted by class, of groups of unequal size; one class is rare."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(200, 900))
    label = np.sort(np.r_[rng.choice([0.0, 1.0], size, p=[0.7, 0.3]), np.full(rare, 2.0)])
    ids = pd.Series([f"{seed}-{n}" for n in range(len(label))])
    home = rng.zipf(1.5, len(label)).clip(max=50) + 1000 * label.astype(int)
    return pd.DataFrame(
        {
            "example_id": ids,
            "as_of": pd.NaT,
            "label": label,
            "label_time": pd.NaT,
            "outcome": "",
            "cluster": home.astype(str),
        }
    )


@many
@every_way
def test_a_split_hangs_on_names_alone(settings: Split, seed: int) -> None:
    """Whatever order the rows came in, each is where it was."""
    table, order = rows(seed), np.random.default_rng(seed + 1)
    table = table.assign(cluster=table.example_id)
    here = assign(table, settings, THREE, seed=5)
    there = assign(table.iloc[order.permutation(len(table))], settings, THREE, seed=5)
    assert there.sort_index().equals(here)
    assert not assign(table, settings, THREE, seed=6).equals(here), "another seed is another split"


@many
@every_way
def test_each_class_is_on_each_side(settings: Split, seed: int) -> None:
    """As few as three rows of a class are enough."""
    table = rows(seed, rare=3).assign(cluster=lambda t: t.example_id)
    split = assign(table, settings, THREE, seed)
    needed = {"train", "test"} | ({"validation"} if isinstance(settings, Random) else set())
    assert all(set(split[table.label == code]) >= needed for code in range(3))
    shares = split.value_counts(normalize=True)
    assert abs(shares["test"] - settings.test) < 0.03, shares


@many
def test_groups_stay_whole(seed: int) -> None:
    """In the split, and in the folds of every repeat."""
    table = rows(seed, rare=60)
    for settings in (SETTINGS[0], SETTINGS[2]):
        split = assign(table, settings, THREE, seed)
        assert (split.groupby(table.cluster).nunique() == 1).all()
    train = table[split == "train"]
    parts = pd.DataFrame(folds(train.cluster, train.label.to_numpy(), SETTINGS[2], THREE, seed), index=train.index)
    assert (parts.groupby(train.cluster).nunique() == 1).all(axis=None) and parts.shape[1] == 3
    for repeat in parts:
        left = [set(train.label[parts[repeat] != fold]) for fold in range(5)]
        assert left == [{0.0, 1.0, 2.0}] * 5, "whatever is left out, a model has seen every class"


@many
def test_what_is_proposed_can_be_used(seed: int) -> None:
    """With and without a time, of many rows and of few."""
    table = rows(seed, rare=60).assign(cluster=lambda t: t.example_id)
    shuffled = table.sample(frac=1, random_state=seed, ignore_index=True)
    days = pd.Series(pd.date_range("2024-01-01", periods=len(table), freq="7h"))
    for name, one in {
        "no time": table,
        "a time": shuffled.assign(as_of=days, label_time=days + pd.Timedelta("1h")),
        "one instant": table.assign(as_of=days[0], label_time=days[0] + pd.Timedelta("1h")),
        "sorted by class": table.assign(as_of=days, label_time=days + pd.Timedelta("1h")),
    }.items():
        settings, why = propose_split(one, THREE)
        split = TypeAdapter(Split).validate_python(settings)
        assert (split.method == "time") == (name == "a time"), (name, why)
        assign(one, split, THREE, seed)


def test_no_date_is_invented(tmp_path: Path) -> None:
    """Sorted by class, without a time: times are missing, and the order the rows are put into mixes the classes."""
    path = tmp_path / "plants.csv"
    table = pd.DataFrame({"height": np.linspace(1, 2, 90), "kind": np.repeat(["fern", "moss", "tree"], 30)})
    table.to_csv(path, index=False)
    plants = Tabular(source=str(path), labels={"kind": {"column": "kind", "classes": ["fern", "moss", "tree"]}})
    task = example("multiclass", classes=["fern", "moss", "tree"])
    examples = check_examples(plants.examples(plants.ingest(), "kind"), task)
    assert examples[["as_of", "label_time"]].isna().all(axis=None)
    assert examples.label.tail(9).nunique() > 1, "the last tenth stops the network's training"


def test_rows_without_a_key_keep_their_names_when_the_future_is_removed(tmp_path: Path) -> None:
    """A file that is not in the order of time: no row may be taken for another, and no leak be seen that is none."""
    path, rng = tmp_path / "orders.csv", np.random.default_rng(0)
    placed = pd.Series(pd.date_range("2024-01-01", periods=400, freq="h")).sample(frac=1, random_state=0)
    table = pd.DataFrame(
        {"placed": placed.to_numpy(), "amount": rng.gamma(2, 20, 400), "back": rng.integers(0, 2, 400)}
    )
    table.to_csv(path, index=False)
    orders = Tabular(source=str(path), labels={"back": {"column": "back", "equals": 1}}, as_of="placed")
    tables = orders.ingest()
    contract = Table(key=[], columns={"placed": Column(type="datetime")}, known_at="placed")
    examples = check_examples(orders.examples(tables, "back"), example())
    found = future(orders, tables, {"rows": contract}, examples, LIMITS)
    assert (found.figure == 0).all() and not found.above.any(), found
