"""The worked example of CONTRIBUTING.md: a metric of one's own, by a function and a word."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fieldbook.core.interval import Evaluate
from fieldbook.evaluate import metrics
from fieldbook.evaluate.bootstrap import bootstrap, intervals
from fieldbook.evaluate.metrics import METRICS
from fieldbook.evaluate.scores import Scores
from fieldbook.scope.framing import Binary, Costs
from fieldbook.scope.limit import Limit
from fieldbook.select.gate import PASSED, judge

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def mine() -> Iterator[str]:
    """Run the example's function, which registers it for the time of a test; return its name."""
    section = (ROOT / "CONTRIBUTING.md").read_text().split("\n## A metric\n")[1].split("\n## ")[0]
    for place in ("notebooks/06_evaluate/10_metrics.ipynb", "conf/evaluate.yaml"):
        assert f"`{place}`" in section and (ROOT / place).exists()
    before = set(METRICS)
    exec(re.search(r"```python\n(.*?)```", section, re.DOTALL)[1], dict(vars(metrics)))
    (name,) = set(METRICS) - before
    yield name
    del METRICS[name]


def test_a_function_and_a_word_are_enough(mine: str) -> None:
    """Intervals, figures, limits and the objective then know it, by its name."""
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
