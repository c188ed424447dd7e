"""What the feature table of this problem must be like."""

from pathlib import Path

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def table(project: Path) -> pd.DataFrame:
    """Return the feature table."""
    return pd.read_parquet(project / "data/features/features.parquet")


def test_split_sizes_are_counted(table: pd.DataFrame) -> None:
    """Nothing is lost between the splits: purged rows are there, under that name."""
    counts = table["split"].value_counts()
    assert counts.sum() == len(table) and 0 < counts["purged"] < 0.01 * len(table)


def test_no_feature_is_the_label_in_disguise(table: pd.DataFrame) -> None:
    """What is known only after departure is not among the features, and no number alone tells the label."""
    from sklearn.metrics import roc_auc_score

    rows = table[(table["split"] == "train") & table["label"].notna()].sample(20_000, random_state=0)
    for name in rows.select_dtypes("float32"):
        known = rows[name].notna()
        auc = roc_auc_score(rows.loc[known, "label"], rows.loc[known, name])
        assert 0.25 < auc < 0.75, f"{name} alone has AUC {auc:.2f}"
