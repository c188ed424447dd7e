"""The reference: small for any table and any framing, the same bytes again, silent on what is private."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fieldbook.core.interval import Evaluate
from fieldbook.features.features import Features
from fieldbook.model.folded import Folded
from fieldbook.package.bins import bins_of_numbers
from fieldbook.package.judge import judge_all
from fieldbook.package.reference import Reference, Stream, read_reference
from fieldbook.package.sketch import Source, sketch, written
from fieldbook.scope.column import Condition
from fieldbook.scope.framing import Framing
from fieldbook.scope.framings import example

KINDS = ("binary", "multiclass", "multilabel", "regression")


class Fields:
    """A problem whose features are its fields."""

    def columns(self, request: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return them, and one that is made of two."""
        numbers = {name: values.astype(np.float32) for name, values in request.items() if values.dtype.kind == "f"}
        words = {name: values for name, values in request.items() if values.dtype.kind == "O"}
        return numbers | words | {"sum": (request["x0"] + request["x1"]).astype(np.float32)}


class Shares:
    """Answers classes or values with what the first field says."""

    def __init__(self, classes: int) -> None:
        self.classes_ = np.arange(float(classes))

    def predict_proba(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the shares of the classes."""
        first = rows["x0"].to_numpy(float)[:, None] * np.arange(1, len(self.classes_) + 1)
        return np.exp(first) / np.exp(first).sum(axis=1, keepdims=True)

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        """Return a value."""
        return rows["x0"].to_numpy(float) * 2


class Several:
    """Answers two labels, as an estimator for each label would."""

    def __getitem__(self, name: str) -> Any:
        """Return itself, as a pipeline returns its last step."""
        return self

    @property
    def estimators_(self) -> list[Shares]:
        """One for each label."""
        return [Shares(2), Shares(2)]

    def predict_proba(self, rows: pd.DataFrame) -> list[np.ndarray]:
        """Return the shares of both."""
        return [one.predict_proba(rows) for one in self.estimators_]


MODELS = {"binary": Shares(2), "multiclass": Shares(3), "multilabel": Several(), "regression": Shares(2)}


def source(task: Framing, rows: int = 2000, columns: int = 3, timed: bool = True, private: bool = False) -> Source:
    """Return rows of numbers and one word, of which every second is held out."""
    draw = np.random.default_rng(0)
    fields = pd.DataFrame(draw.normal(size=(rows, columns)), columns=[f"x{i}" for i in range(columns)])
    fields["town"] = draw.choice(["Basel", "Bern", "Zug"], rows)
    most = {"binary": 2, "multiclass": 3, "multilabel": 4}.get(task.kind)
    label = draw.integers(0, most, rows).astype(float) if most else fields["x0"].to_numpy() + draw.normal(size=rows)
    when = pd.Series(pd.date_range("2013-01-01", periods=rows, freq="30min") if timed else [pd.NaT] * rows)
    contract = {name: {"type": "float", "nullable": True} for name in fields if name != "town"}
    contract |= {"town": {"type": "str"}} | ({"x1": {"type": "float", "private": "omit"}} if private else {})
    features = Features.model_validate({"request": contract, "groups": {"all": [*contract, "sum"]}})
    made = fields.assign(sum=fields["x0"] + fields["x1"]).astype(
        {name: "float32" for name in contract if name != "town"}
    )
    keys = {"as_of": when, "label": label, "label_time": when + pd.Timedelta("3h"), "cluster": np.arange(rows) // 50}
    return Source(
        version="v",
        task=task,
        problem=Fields(),
        features=features,
        judged=MODELS[task.kind],
        table=pd.DataFrame(keys).join(made),
        requests=fields,
        held=np.arange(rows) % 2 == 0,
        metrics={},
        slices={"high": {"x1": Condition(at_least=0)}, "west": {"town": Condition(one_of=["Bern"])}},
        sure=Evaluate(replicates=50, confidence=0.95, bins=10),
        seed=1,
    )


def unpriced(kind: str) -> Framing:
    """Return a framing of whose mistakes nobody has said what they cost."""
    task = example(kind)
    return example(
        kind, costs={**task.costs.model_dump(), "given": False}, objective="rmse" if task.value else "log_loss"
    )


@pytest.mark.parametrize("timed", [True, False], ids=["timed", "timeless"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_framing_has_a_reference(kind: str, timed: bool) -> None:
    for task in (example(kind), unpriced(kind)):
        known = sketch(source(task, timed=timed))
        assert Reference.model_validate(json.loads(written(known))) == known
        scores = [name for name in known.streams if name.startswith("score:")]
        assert scores == [f"score:{name}" for name in task.columns]
        assert ("decision" in known.streams) == (not task.value)
        assert bool(known.delays) == bool(known.begins) == bool(known.streams["field:x0"].unrest) == timed
        assert known.unit == task.lost_in and sum(known.bands.rows) == known.held_out == 1000
        parts = known.streams["field:x0"].by_outcome
        if not task.value:
            assert sum(map(sum, parts.values())) == 1000 * (len(task.columns) if task.several else 1)
        assert not parts or set(parts) >= set(task.columns)


def test_held_out_rows_of_a_cross_validation_are_answered_by_models_that_had_not_seen_them() -> None:
    one = source(example())

    class Never:
        """Would be wrong to ask."""

        def predict_proba(self, rows: pd.DataFrame) -> np.ndarray:
            """Refuse."""
            raise AssertionError("it has seen these rows")

    table = one.table.set_index(np.arange(len(one.table)).astype(str))
    fold = pd.Series(np.arange(len(table)) % 2, index=table.index)
    folded = Folded(fold, {0: MODELS["binary"], 1: MODELS["binary"]}, Never())
    every = np.full(len(table), True)
    known = sketch(Source(**{**vars(one), "table": table, "judged": folded, "held": every}))
    assert known.rows == known.held_out == len(table)


def test_nothing_private_is_told() -> None:
    open_, closed = sketch(source(example())), sketch(source(example(), private=True))
    assert {"field:x1", "feature:sum"} <= set(open_.streams) and "high" in open_.slices
    text = written(closed).decode()
    assert not {"field:x1", "feature:x1", "feature:sum"} & set(closed.streams) and '"x1"' not in text
    assert list(closed.slices) == ["west"] and "field:x1" not in closed.sample.streams


@pytest.mark.parametrize(("columns", "rows"), [(200, 3000), (400, 3000), (3, 200_000)])
def test_the_file_is_small(columns: int, rows: int) -> None:
    known = sketch(source(example(), rows=rows, columns=columns))
    assert len(written(known)) < 300 * 1024
    assert known.sample.rows >= 50 and len(known.streams) >= columns


def test_the_same_rows_give_the_same_bytes() -> None:
    assert written(sketch(source(example()))) == written(sketch(source(example())))


def test_windows_larger_than_the_reference_are_quiet() -> None:
    """Rows beyond all that a small reference saw are no news, and what it says is not certain either."""
    draw = np.random.default_rng(0)
    before, after = draw.normal(size=(20_000, 50)), draw.normal(size=(100_000, 50))
    bins = [bins_of_numbers(column) for column in before.T]
    streams = {
        str(i): Stream(kind="field", bins=one, counts=one.count(one.codes(column)).tolist())
        for i, (one, column) in enumerate(zip(bins, before.T))
    }
    counts = {str(i): one.count(one.codes(column))[None] for i, (one, column) in enumerate(zip(bins, after.T))}
    assert (judge_all(streams, counts, np.zeros(1)).surprise > 1e-4).all()


@pytest.mark.parametrize("rows", [200, 1000, 10_000])
def test_false_alarms_are_as_many_as_are_tolerated(rows: int) -> None:
    """Independent rows: of 4,000 windows, the share below a limit is within what chance allows around the limit."""
    draw, times, limit = np.random.default_rng(rows), 4000, 0.01
    bins = bins_of_numbers(draw.normal(size=100_000))
    stream = Stream(kind="field", bins=bins, counts=bins.count(bins.codes(draw.normal(size=100_000))).tolist())
    shares = np.array(stream.counts) / 100_000
    judged = judge_all({"": stream}, {"": draw.multinomial(rows, shares, size=times)}, np.zeros(times))
    alarms = int((judged.surprise < limit).sum())
    assert 0.3 * limit * times < alarms < limit * times + 4 * np.sqrt(limit * times)


def test_a_quarter_of_a_standard_deviation_is_seen() -> None:
    """One of 50 columns, 1,000 rows, a look each hour and one false alarm a month."""
    draw, limit = np.random.default_rng(5), 1 / (50 * 720)
    bins = bins_of_numbers(draw.normal(size=100_000))
    stream = Stream(kind="field", bins=bins, counts=bins.count(bins.codes(draw.normal(size=100_000))).tolist())
    windows = np.array([bins.count(bins.codes(draw.normal(size=1000) + 0.25)) for _ in range(300)])
    judged = judge_all({"": stream}, {"": windows}, np.zeros(300))
    assert ((judged.surprise < limit) & (judged.low > 0.1)).mean() >= 0.9


def test_the_project_has_one(project: Path, manifest: dict[str, Any]) -> None:
    path = project / "data/champion/reference.json"
    known = read_reference(path.parent)
    assert path.stat().st_size < 300 * 1024 and known.model == manifest["version"]
    assert known.loss["low"] < known.loss["value"] < known.loss["high"]
    values = [Stream.model_validate(one.model_dump()) for one in known.streams.values()]
    assert all(len(one.counts) == one.bins.size for one in values)
