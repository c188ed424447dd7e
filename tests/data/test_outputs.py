"""What the data stages left keeps its promises."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fieldbook.data.division import Split
from fieldbook.data.ingest import Ingest, check
from fieldbook.features.features import Features, compute
from fieldbook.features.request import frame_arrays
from fieldbook.scope.problem import Problem


@pytest.fixture(scope="module")
def table(project: Path) -> pd.DataFrame:
    """Return the feature table."""
    return pd.read_parquet(project / "data/features/features.parquet")


def test_raw_tables_keep_their_contracts(raw: dict[str, pd.DataFrame], setting: Callable[[str, Any], Any]) -> None:
    """Parquet on disk passes the contract that it passed on the way in."""
    contracts = setting("ingest", Ingest).tables
    assert raw.keys() == contracts.keys()
    for name, frame in raw.items():
        pd.testing.assert_frame_equal(check(name, frame, contracts[name]), frame)


def test_splits_follow_one_another(table: pd.DataFrame, setting: Callable[[str, Any], Any]) -> None:
    """No label of a split became known after the next split began; without a time, no cluster is on two sides."""
    if table["as_of"].isna().all():
        by_row = getattr(setting("split", Split), "by", "cluster") == "row"
        assert by_row or (table.groupby("cluster")["split"].nunique() == 1).all()
        return
    order = ["train", "validation", "test", "production"]
    for before, after in zip(order, order[1:], strict=False):
        known, asked = (
            table.loc[table["split"] == before, "label_time"].max(),
            table.loc[table["split"] == after, "as_of"].min(),
        )
        assert known < asked, f"a label of {before} became known after {after} began"


def test_features_are_the_one_definition_over_the_requests(
    project: Path, table: pd.DataFrame, setting: Callable[[str, Any], Any], problem: Problem
) -> None:
    """Recomputed from the stored requests, every feature is the same to the bit."""
    requests = pd.read_parquet(project / "data/features/requests.parquet")
    assert list(requests["example_id"]) == list(table["example_id"])
    features = setting("features", Features)
    columns = compute(problem, frame_arrays(requests, features.request), features.derive)
    for name in features.names:
        stored = table[name].to_numpy(columns[name].dtype)
        assert np.array_equal(stored, columns[name], equal_nan=stored.dtype.kind == "f"), name
