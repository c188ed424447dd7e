"""A gate that cannot be kept by doing nothing, and a choice that says what it does not know."""

from typing import Any

import numpy as np
import pytest

from fieldbook import FieldbookError
from fieldbook.core.interval import Evaluate
from fieldbook.evaluate.bootstrap import bootstrap, intervals
from fieldbook.evaluate.ratio import at_ratios
from fieldbook.evaluate.scores import Scores
from fieldbook.scope.framings import example
from fieldbook.select.select import Dimension, Select, choose

TASTE = Select(prefer="lowest", board=[Dimension(name="cost", figure="expected_cost", better="lower", weight=1)])
ONCE = {"unit": "mistakes", "false_alarm": 1, "missed": 1}
PAYS = [{"metric": "saving", "at_least": 0, "why": "it must be cheaper than answering the same every time"}]
SURE = Evaluate(replicates=200, confidence=0.95, bins=10)


def models(rows: int = 1500) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return labels of which 9 % are yes, and the probabilities of a good model, of a stuck one, and of none."""
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=rows) * 2 - 3.6
    label = (rng.uniform(size=rows) < 1 / (1 + np.exp(-hidden))).astype(float)
    good = 1 / (1 + np.exp(-(hidden + rng.normal(size=rows) * 0.7)))
    known = {
        "boosting": good,
        "stuck": np.full(rows, 0.1) + 0.01 * rng.uniform(size=rows),
        "majority": np.full(rows, 0.09),
    }
    return label, {name: outputs[:, None] for name, outputs in known.items()}


def chosen(task: Any, names: list[str]) -> dict[str, Any]:
    """Return what is chosen among some of these models."""
    label, outputs = models()
    figures, replicates = {}, {}
    for name in names:
        scores = Scores(label, outputs[name], task, SURE.bins)
        replicates[name] = bootstrap(scores, np.arange(len(label)), SURE, seed=0)
        figures[name] = {"rows": len(label), **intervals(scores, replicates[name], SURE.confidence)}
        figures[name] |= {} if task.costs.given else {"ratios": at_ratios(scores)}
    return choose(task, TASTE, figures, replicates, SURE.confidence, "majority")


def test_who_decides_the_same_for_everybody_keeps_no_limit_by_that() -> None:
    """With a cost of 1 to 1 and 9 % positives never to act saves exactly nothing: that is no reason to let it serve."""
    with pytest.raises(FieldbookError) as error:
        chosen(example(costs=ONCE, limits=PAYS), ["stuck", "majority"])
    assert str(error.value).count("no limit is kept by doing nothing") == 2


def test_without_costs_a_proper_score_chooses_and_says_what_costs_would_change() -> None:
    """The good model is chosen; the first lines say that the costs are missing, and where the threshold would be."""
    board = chosen(example(objective="log_loss", costs={**ONCE, "given": False}), ["boosting", "stuck", "majority"])
    (remark,) = board["remarks"]
    assert board["champion"] == "boosting" and "nobody has said yet" in remark
    assert "would move that to 0.33, 0.17 or 0.091, and would leave boosting the cheapest" in remark


def test_a_champion_that_is_not_better_than_nothing_is_called_that_first() -> None:
    """It gets its Bento where no limit forbids it, and nobody can overlook what it is."""
    free = example(objective="log_loss", costs={**ONCE, "given": False})
    board = chosen(free, ["stuck", "majority"])
    assert (
        "answering the same for everybody" in board["remarks"][0]
        and "as far as these rows can tell" in board["remarks"][0]
    )
    stuck = next(row for row in board["models"] if row["model"] == "stuck")
    assert board["champion"] == "majority" and stuck["remark"].startswith("it has learnt nothing that helps")
