"""A metric of one's own is a function and a word: intervals, files, limits and the board then know it."""

import numpy as np
import pandas as pd
import pytest

from fieldbook.core.interval import Evaluate
from fieldbook.evaluate.bootstrap import bootstrap, intervals
from fieldbook.evaluate.metrics import METRICS, metric
from fieldbook.evaluate.scores import Scores, Weighed
from fieldbook.scope.framing import Binary, Costs
from fieldbook.scope.limit import Limit
from fieldbook.select.gate import PASSED, judge


@pytest.fixture
def mine() -> str:
    """Register a metric for the time of a test; return its name."""

    @metric("wrong decisions", better="lower", kinds=("binary",))
    def zero_one_loss(rows: Weighed) -> float:
        """Return the share of rows in which the decision and what happened differ."""
        return rows.mean(rows.task.acts(rows.outputs) != rows.label)

    yield zero_one_loss.__name__
    del METRICS[zero_one_loss.__name__]


def test_a_function_and_a_word_are_enough(mine: str) -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(size=2000)
    label = (rng.uniform(size=2000) < p).astype(float)
    costs = Costs(unit="USD", false_alarm=1, missed=1)
    task = Binary(kind="binary", positive="yes", negative="no", objective=mine, costs=costs)
    asked = Evaluate(replicates=50, confidence=0.95, bins=10, metrics=["roc_auc", mine])
    scores = Scores(label, p[:, None], task, asked.bins)
    replicates = bootstrap(scores, np.arange(2000) // 20, asked, seed=1)
    assert list(replicates) == ["roc_auc", mine] and isinstance(replicates, pd.DataFrame)
    figures = {"rows": 2000, **intervals(scores, replicates, asked.confidence)}
    assert figures[mine]["low"] < figures[mine]["value"] == np.mean((p >= 0.5) != label) < figures[mine]["high"]
    assert judge(Limit(metric=mine, at_most=0.4, why=""), figures).state == PASSED
