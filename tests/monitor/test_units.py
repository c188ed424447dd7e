"""A model that knows winter alone meets spring: that is no other unit, and another unit is still found in it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fieldbook.monitor.notice import Notice
from fieldbook.monitor.rows import Rows
from fieldbook.monitor.unit import units
from fieldbook.package.bins import bins_of_numbers
from fieldbook.package.reference import Reference, Stream, read_reference

NOTICE = Notice(chance=0.01, confidence=0.95, shift=0.1, share=0.01)
DAY = np.timedelta64(24, "h")


@pytest.fixture(scope="module")
def sent(project: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return times, and the fields of numbers, of all requests until June."""
    table = pd.read_parquet(project / "data/features/features.parquet", columns=["as_of"])
    table = table[table["as_of"] < pd.Timestamp("2013-06-01")].sort_values("as_of", kind="stable")
    requests = pd.read_parquet(project / "data/features/requests.parquet").loc[table.index]
    streams = read_reference(project / "data/champion").streams
    names = [name for name in requests if (one := streams.get(f"field:{name}")) and one.quantiles and not one.lag]
    return table["as_of"].to_numpy().astype("datetime64[ms]"), {name: requests[name].to_numpy(float) for name in names}


@pytest.fixture(scope="module")
def winter(project: Path, sent: tuple[np.ndarray, dict[str, np.ndarray]]) -> Reference:
    """Return a reference that knows the fields until the end of March."""
    of, (time, fields) = read_reference(project / "data/champion"), sent
    return of.model_copy(
        update={
            "streams": {
                f"field:{name}": stream(column[time < np.datetime64("2013-03-25")], of.streams[f"field:{name}"].why)
                for name, column in fields.items()
            }
        }
    )


def stream(column: np.ndarray, why: str) -> Stream:
    known = column[np.isfinite(column)]
    bins = bins_of_numbers(known)
    quantiles = np.quantile(known, np.linspace(0, 1, 21)).tolist()
    counts = bins.count(bins.codes(column)).tolist()
    return Stream(kind="field", bins=bins, counts=counts, quantiles=quantiles, sd=float(known.std()), why=why)


@pytest.fixture(scope="module")
def spring(winter: Reference, sent: tuple[np.ndarray, dict[str, np.ndarray]]) -> Rows:
    """Return April and May as the monitor sees them; what is no field is left empty."""
    time, fields = sent
    part = time >= np.datetime64("2013-04-01")
    numbers = {name: column[part].astype(np.float32) for name, column in fields.items()}
    codes = {name: one.bins.codes(numbers[name.removeprefix("field:")]) for name, one in winter.streams.items()}
    none, no = np.full(part.sum(), np.nan), np.zeros(part.sum(), bool)
    late = np.full(part.sum(), np.datetime64("NaT"), "datetime64[ms]")
    ids = np.arange(part.sum()).astype(str)
    return Rows(time[part], ids, codes, numbers, none[:, None], none, none, late, no, no.astype(int), none)


def test_spring_is_not_another_unit(winter: Reference, spring: Rows) -> None:
    days = np.arange(np.datetime64("2013-04-01"), np.datetime64("2013-06-01"))
    told = [one.words for day in days for one in units(winter, spring.since(day, day + DAY), "day", NOTICE)]
    assert told == []


def test_degrees_celsius_are_found_in_april(winter: Reference, spring: Rows) -> None:
    """Of a mild day in °C winter has seen the like, in °F; so not every day tells it, but most."""
    found = []
    for day in np.arange(np.datetime64("2013-04-01"), np.datetime64("2013-04-30")):
        turns = day.astype("datetime64[ms]") + np.timedelta64(13, "h")
        rows = spring.since(turns - DAY // 2, turns + DAY)
        values = rows.numbers["temperature"]
        values = np.where(rows.time >= turns, (values - 32) / 1.8, values)
        codes = rows.codes | {"field:temperature": winter.streams["field:temperature"].bins.codes(values)}
        sent = replace(rows, numbers=rows.numbers | {"temperature": values}, codes=codes)
        found.append([one.words for one in units(winter, sent, "now", NOTICE)])
    right = ["temperature comes converted (degrees Fahrenheit to Celsius)" in " ".join(words) for words in found]
    assert np.mean(right) > 0.5 and all(len(words) <= 1 for words in found)
