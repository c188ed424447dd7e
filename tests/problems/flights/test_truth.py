"""What a policy would have cost, from the log of another: held against the truth, which for flights is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from fieldbook.core.refuses import refuses
from fieldbook.experiment.guess import fitted
from fieldbook.experiment.logged import Logged, always
from fieldbook.experiment.offline import ESTIMATORS, doubly, estimate, horvitz, matched
from fieldbook.experiment.truth import World, cases, drawn, study, tabled, world_of

NOTEBOOK = Path("notebooks/13_experiment/67_truth.ipynb")


@pytest.fixture(scope="module")
def world(project: Path) -> World:
    """Return September to December, which the champion never saw."""
    return world_of(project / "data/champion", "2013-09-01", "2014-01-01", project / "data")


@pytest.mark.slow
def test_the_table_in_the_prose_is_what_comes_out_and_intervals_cover(project: Path, world: World) -> None:
    """Each estimate is near the truth, its interval covers it about as often as it says, and the notebook tells so."""
    found = study(world, cases(world), runs=200)
    cells = json.loads((project / NOTEBOOK).read_text())["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert tabled(found, "USD") in prose
    for one in found:
        assert 0.90 <= one["covered"] <= 0.99, one
        assert one["lot"] < one["off"] < 0.15 * one["truth"], one
    by = {(one["case"], one["estimate"]): one for one in found}
    for case in cases(world):
        first, _, last = (by[case.name, name] for name in ESTIMATORS)
        assert last["lot"] < first["lot"], case.name  # a guess takes out some of what lots do


@pytest.mark.slow
def test_a_learnt_guess_does_as_well_as_calibrated_probabilities(world: World) -> None:
    """A regression on the log, which has never seen an outcome as such, takes out what lots do, too."""
    case = cases(world)[2]
    policy, champion = world.decisions["heuristic"], world.decisions["champion"]
    features = np.column_stack([world.guess[:, 0], policy, champion])
    errors: dict[str, list[float]] = {"none": [], "learnt": [], "told": []}
    for seed in range(8):
        rng = np.random.default_rng(seed)
        of = np.flatnonzero(np.isin(world.day, rng.choice(world.day.max() + 1, 28, replace=False)))
        decision = (rng.uniform(size=len(of)) < case.chances[of, 1]).astype(int)
        log = Logged(case.chances[of], decision, world.losses[of, decision], world.day[of])
        truth = 1000 * world.losses[of, policy[of]].mean()
        judged = always(policy[of], 2)
        seen = {"none": matched(log, judged), "told": matched(log, judged, world.guess[of])}
        seen["learnt"] = matched(log, judged, fitted(log, features[of], seed=seed))
        for name, rows in seen.items():
            errors[name].append(estimate(rows, horvitz if name == "none" else doubly, replicates=50).value - truth)
    off = {name: float(np.sqrt(np.mean(np.square(each)))) for name, each in errors.items()}
    assert off["learnt"] < off["none"] and off["told"] < off["none"], off


def test_what_a_log_cannot_know_is_refused(world: World) -> None:
    """A canary says nothing of a policy that neither model has."""
    canary = cases(world)[2]
    rows = np.arange(5000)
    log = Logged(canary.chances[rows], world.decisions["champion"][rows], world.losses[rows, 0], world.day[rows])
    with refuses("could never have decided"):
        matched(log, always(1 - world.decisions["champion"][rows], 2))


def test_probabilities_that_are_not_those_of_the_log_show(world: World) -> None:
    """Weights have a mean of one only where the probabilities are those by which was decided."""
    case = cases(world)[1]
    right, rows = drawn(world, case, 28, np.random.default_rng(0))
    assert abs(estimate(right).weight - 1) < 0.1
    policy, half = case.policy[rows], np.full((len(rows), 2), 0.5)
    wrong = matched(Logged(half, policy[:, 1].astype(int), right.value, right.cluster), policy)
    assert estimate(wrong).weight > 1.5
