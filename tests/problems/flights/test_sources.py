"""The five tables against their contracts: a source that breaks one is told in one line, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
from scratch import Project, errors

pytestmark = pytest.mark.slow


def storm(table: pd.DataFrame) -> pd.DataFrame:
    """Make the wind too strong in three rows."""
    table.loc[[5, 70, 800], "wind_speed"] = "999"
    return table


def double(table: pd.DataFrame) -> pd.DataFrame:
    """Repeat a row."""
    return pd.concat([table, table.iloc[[7]]])


def words(table: pd.DataFrame) -> pd.DataFrame:
    """Write text where numbers belong."""
    table.loc[[3, 4, 5], "dep_delay"] = "soon"
    return table


BREACHES: dict[str, tuple[str, Callable[[pd.DataFrame], pd.DataFrame], list[str]]] = {
    "range": (
        "weather",
        storm,
        ["column wind_speed", "'at most 120'", "3 rows", "row 5: 999.0", "row 70:", "row 800:"],
    ),
    "key": ("airlines", double, ["columns carrier", "'unique key'", "2 rows", "row 7:", "row 16:"]),
    "type": ("flights", words, ["column dep_delay", "'type float'", "3 rows", "row 3: 'soon'", "row 4:", "row 5:"]),
    "column": ("planes", lambda table: table.drop(columns="seats"), ["column seats", "missing"]),
    "empty": ("airports", lambda table: table.head(0), ["no rows"]),
}


def spoil(project: Project, breach: str) -> list[str]:
    """Write a source that breaks its contract; return what the message must say."""
    name, change, parts = BREACHES[breach]
    path = project.path / "source" / f"{name}.csv"
    change(pd.read_csv(path, dtype=str)).to_csv(path, index=False)
    return [f"table {name}", *parts]


@pytest.mark.parametrize("breach", BREACHES)
def test_a_source_that_breaks_its_contract_is_told_in_one_line(month: Project, scratch: Project, breach: str) -> None:
    parts = spoil(scratch, breach)
    done = scratch.run("python3", "src", "ingest")
    assert done.returncode == 1 and len(errors(done)) == 1, done.stdout
    assert [part for part in parts if part not in errors(done)[0]] == [], errors(done)[0]
    assert scratch.files("data") == month.files("data")


def test_a_file_that_is_empty_or_gone_is_named(month: Project, scratch: Project) -> None:
    (scratch.path / "source/airlines.csv").write_text("")
    done = scratch.run("python3", "src", "ingest")
    assert done.returncode == 1 and len(errors(done)) == 1 and "airlines" in errors(done)[0], done.stdout
    (scratch.path / "source/airlines.csv").unlink()
    done = scratch.run("python3", "src", "ingest")
    assert done.returncode == 1 and len(errors(done)) == 1 and "airlines" in errors(done)[0], done.stdout
    assert scratch.files("data") == month.files("data")
