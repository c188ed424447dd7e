"""One fault at a time in a small world: the monitor finds it, and says what it is."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fieldbook.core.interval import Evaluate
from fieldbook.monitor.cause import Cause, causes
from fieldbook.monitor.look import look
from fieldbook.monitor.notice import Notice
from fieldbook.monitor.rows import Rows
from fieldbook.monitor.toy import World, reference_of, rows_of
from fieldbook.package.reference import Reference

NOTICE = Notice(chance=0.001, confidence=0.95, shift=0.1, share=0.01)
SETTINGS = Evaluate(replicates=50, confidence=0.95, bins=10, metrics=["expected_cost"])


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Return what a model knew, with the quantiles that a packaged one has."""
    of, x = reference_of(), World().draw(20_000, 7)[0]
    numbers = {
        f"field:x{i}": {
            "quantiles": np.quantile(column, np.linspace(0, 1, 21)).tolist(),
            "mean": 0.0,
            "sd": column.std(),
        }
        for i, column in enumerate(x.T)
    }
    streams = {name: one.model_copy(update=numbers.get(name, {})) for name, one in of.streams.items()}
    return of.model_copy(update={"streams": streams})


def told(reference: Reference, rows: Rows) -> list[Cause]:
    """Return the causes that the monitor tells of rows."""
    return causes(look(reference, World().task, rows, "month", NOTICE, SETTINGS, 0))


def changed(reference: Reference, rows: Rows, values: np.ndarray, name: str = "x0") -> Rows:
    """Return rows in which a field has other values, (rows,)."""
    codes = rows.codes | {f"field:{name}": reference.streams[f"field:{name}"].bins.codes(values)}
    return replace(rows, numbers=rows.numbers | {name: values.astype(np.float32)}, codes=codes)


def test_nothing_is_told_of_a_quiet_window(reference: Reference) -> None:
    """Twenty windows of the world as it was: none calls, at a chance of one in a thousand each."""
    assert [told(reference, rows_of(World(), reference, 2000, seed)) for seed in range(100, 120)] == [[]] * 20


FAULTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "unit": lambda x: x * 60,
    "missing field": lambda x: np.where(np.arange(len(x)) % 2, np.nan, x),
    "frozen": lambda x: np.where(np.arange(len(x)) < 1000, x, x[1000]),
    "shift": lambda x: x + 0.5,
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_of_a_field_is_named(reference: Reference, kind: str) -> None:
    """The first cause is of the right kind and field, and takes the field's own shift with it."""
    rows = rows_of(World(), reference, 2000, 1)
    first, *others = told(reference, changed(reference, rows, FAULTS[kind](rows.numbers["x0"])))
    assert (first.kind, first.streams) == (kind, ["field:x0"])
    assert others == []


@pytest.mark.parametrize(
    ("kind", "world"),
    [
        ("labels flipped", World(flipped=0.15)),
        ("label shift", World(shares=(0.5, 0.5))),
        ("concept shift", World(turned=True)),
        ("shift", World(tilt=0.5)),  # its two numbers go together
    ],
)
def test_a_change_of_the_world_is_named(reference: Reference, kind: str, world: World) -> None:
    """What outcomes and inputs say together is told apart."""
    assert told(reference, rows_of(world, reference, 4000, 1))[0].kind == kind


def test_two_causes_stay_two(reference: Reference) -> None:
    """A unit and a field that is gone are told apart, the unit's shift with the unit."""
    rows = rows_of(World(), reference, 2000, 1)
    both = changed(reference, changed(reference, rows, rows.numbers["x0"] * 60), rows.numbers["x1"] * np.nan, "x1")
    assert {(one.kind, *one.streams) for one in told(reference, both)} == {
        ("unit", "field:x0"),
        ("missing field", "field:x1"),
    }


def test_ids_that_come_twice(reference: Reference) -> None:
    """A log that was written twice is told as doubles."""
    rows = rows_of(World(), reference, 2000, 1)
    assert told(reference, rows.take(np.sort(np.r_[0:2000, 0:200])))[0].kind == "doubles"
