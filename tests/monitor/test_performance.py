"""Performance with and without outcomes, on worlds whose truth is known: intervals hold it, parts are as they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fieldbook.core.interval import Evaluate
from fieldbook.monitor.concept import concept, concept_symptoms
from fieldbook.monitor.coverage import coverage, seen_loss
from fieldbook.monitor.expected import expected
from fieldbook.monitor.parts import loss_under, parts
from fieldbook.monitor.performance import performance
from fieldbook.monitor.ripe import as_of, weights
from fieldbook.monitor.rows import Rows
from fieldbook.monitor.shares import shares_now
from fieldbook.monitor.toy import World, reference_of, rows_of
from fieldbook.package.reference import Reference, graded
from fieldbook.scope.framings import AnyFraming, example
from fieldbook.scope.shares import correct

SETTINGS = Evaluate(replicates=60, confidence=0.95, bins=10, metrics=["expected_cost"])
KINDS = ("binary", "multiclass", "multilabel", "regression")
CHANGES = {"traffic": {"tilt": 0.7}, "shares": {"shares": (0.65, 0.35)}, "world": {"turned": True}}


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Of two outcomes, from many rows, so that its own error is small."""
    return reference_of(count=60_000)


def truth(change: dict) -> dict[str, float]:
    """What traffic, shares and world add to the loss of 1,000 rows, from a large draw and the true probabilities."""
    task = World().task
    (_, was, _), (_, p, label) = World().draw(60_000, 98), World(**change).draw(60_000, 99)
    usual, as_it_was = (loss_under(task, q, q).mean() for q in (was, p))
    now = correct(p, task, [0.2], [change["shares"][1]]) if "shares" in change else p
    shares = loss_under(task, p, now).mean() - as_it_was
    world = task.loss(p, label).mean() - as_it_was - shares
    return {"traffic": 1000 * (as_it_was - usual), "shares": 1000 * shares, "world": 1000 * world}


@pytest.mark.parametrize("cause", CHANGES)
def test_each_change_lands_in_its_part(reference: Reference, cause: str) -> None:
    """Over windows of 3,000 rows, the part of the cause is found, intervals hold the truth, and parts add up."""
    of, task = truth(CHANGES[cause]), World().task
    held = {name: 0 for name in of}
    for seed in range(20):
        seen = parts(rows_of(World(**CHANGES[cause]), reference, 3000, seed), reference, task, SETTINGS, seed)
        assert seen.traffic.value + seen.shares.value + seen.world.value == pytest.approx(seen.change.value, abs=0.01)
        for name, true in of.items():
            figure = getattr(seen, name)
            held[name] += figure.low - 4 <= true <= figure.high + 4  # the truth is of draws, too
        assert getattr(seen, cause).low > 0
    assert min(held.values()) >= 17, held


def test_parts_are_of_the_same_rows_before_outcomes_are_in(reference: Reference) -> None:
    """Traffic and shares do not wait for outcomes, and do not change when these come."""
    rows = rows_of(World(tilt=0.7), reference, 2000, 1)
    blind = parts(replace(rows, label=np.full(2000, np.nan)), reference, World().task, SETTINGS, 0)
    seen = parts(rows, reference, World().task, SETTINGS, 0)
    assert blind.world is None and (blind.traffic, blind.shares) == (seen.traffic, seen.shares)


def test_early_outcomes_mislead_and_weights_do_not(reference: Reference) -> None:
    """Of the last two days, events being three times as slow: the naive loss is too low in every draw."""
    task, now = World().task, np.datetime64("2013-11-04", "ms")
    errors = []
    for seed in range(20):
        rows = rows_of(World(), reference, 6000, seed, days=3)
        then = as_of(rows, now).since(now - np.timedelta64(48, "h"), now - np.timedelta64(6, "h"))
        truth = performance(rows.since(then.time[0], now - np.timedelta64(6, "h")), reference, task, SETTINGS, 0)
        naive = performance(then, reference, task, SETTINGS, 0)
        weight = weights(then, task, reference.delays, now)
        mended = performance(then, reference, task, SETTINGS, 0, weight)
        errors.append([one.whole.loss.value - truth.whole.loss.value for one in (naive, mended)])
    naive, mended = np.mean(errors, axis=0)
    assert naive < -20 and abs(mended) < 0.25 * abs(naive)


def test_expected_loss_holds_what_comes_while_only_traffic_changes(reference: Reference) -> None:
    """And with the concept turned it holds nothing: this is what it says it cannot see."""
    task, of = World().task, {}
    for name, change in {"traffic": {"tilt": 0.7}, "concept": {"turned": True}}.items():
        (_, p, label), held = World(**change).draw(100_000, 5), 0
        true = 1000 * task.loss(p, label).mean()
        for seed in range(20):
            foreseen = expected(rows_of(World(**change), reference, 2000, seed), reference, task, SETTINGS, seed).loss
            held += foreseen.low - 0.02 * true <= true <= foreseen.high + 0.02 * true  # bands are as wide as that
        of[name] = held
    assert of["traffic"] >= 17 and of["concept"] == 0


def test_a_share_of_events_is_estimated_within_two_points(reference: Reference) -> None:
    """From 20 to 30 % at 1,000 rows, on average of 40 windows."""
    seen = [
        shares_now(rows_of(World(shares=(0.7, 0.3)), reference, 1000, seed), reference, World().task, SETTINGS, 0)
        for seed in range(40)
    ]
    after = [one.after["yes"] for one in seen]
    assert np.mean([abs(one.value - 0.3) for one in after]) < 0.02
    assert sum(one.low <= 0.3 <= one.high for one in after) >= 34


@pytest.mark.parametrize(
    ("change", "kind"),
    [({}, None), ({"turned": True}, "concept shift"), ({"flipped": 0.1}, "labels flipped"), ({"tilt": 0.7}, None)],
)
def test_what_outcomes_say_is_told_apart(reference: Reference, change: dict, kind: str | None) -> None:
    """Concept is not taken for flipped labels, nor traffic for either, in 20 windows of 3,000 rows."""
    kinds = []
    for seed in range(20):
        rows = rows_of(World(**change), reference, 3000, seed)
        found = concept_symptoms(
            concept(rows, reference, World().task, SETTINGS, 0), rows, "20 days", "USD", most=0.001
        )
        kinds.append(found[0].kind if found else None)
    assert kinds.count(kind) >= 19, kinds


def test_outcomes_seen_after_one_decision_only(reference: Reference) -> None:
    """The naive loss is wrong in all 20 windows; the one by propensity holds the truth in 17 or more."""
    task, held, wrong = World().task, 0, 0
    for seed in range(20):
        rows, rng = rows_of(World(), reference, 6000, seed), np.random.default_rng(seed)
        given = np.where(rng.random(6000) < 0.1, rng.integers(0, 2, 6000), rows.decision)
        propensity = 0.9 * (given == rows.decision) + 0.05
        truth = 1000 * task.loss(rows.outputs, rows.label).mean()
        shown = replace(rows, decision=given, propensity=propensity, label=np.where(given == 0, rows.label, np.nan))
        seen = seen_loss(shown, task, SETTINGS, seed, shown=["no"])
        held += seen.normalised.low <= truth <= seen.normalised.high
        wrong += seen.naive.high < truth
        assert coverage(shown, task, reference.delays, np.datetime64("2014-01-01")).known["yes"].value == 0
    assert held >= 17 and wrong == 20


def without(rows: Rows) -> Rows:
    """Return rows of which a simpler model answered the half."""
    fallback = np.arange(len(rows)) % 2 == 0
    return replace(rows, fallback=fallback, outputs=np.where(fallback[:, None], np.nan, rows.outputs))


@pytest.mark.parametrize("kind", KINDS)
def test_every_framing_and_every_gap(kind: str) -> None:
    """Few rows, no outcomes, a simpler model's answers: figures, or None, and never an error."""
    of, world = reference_of(World(kind), 5000), World(kind)
    rows = rows_of(world, of, 600, 1)
    windows = {
        "none": rows.take(slice(0, 0)),
        "ten": rows.take(slice(0, 10)),
        "no outcomes": replace(rows, label=np.full(600, np.nan)),
        "simpler": without(rows),
        "an hour": rows_of(world, of, 600, 1, days=1 / 24),
    }
    for name, window in windows.items():
        answers = [look(window, of, world.task, SETTINGS, 0) for look in (performance, expected, parts, concept)]
        shares = shares_now(window, of, world.task, SETTINGS, 0)
        if name in ("none", "ten"):
            assert answers == [None] * 4 and shares is None
        elif name == "no outcomes":
            assert answers[0] is None and answers[3] is None and answers[1].rows == 600
        else:
            count = 300 if name == "simpler" else 600
            assert answers[0].whole.rows == answers[1].rows == answers[2].known == answers[3].rows == count
            assert (shares is None) == world.task.value


def test_a_problem_without_costs_is_judged_by_its_penalty() -> None:
    """The same figures, in log loss."""
    task = example(objective="log_loss", costs={"unit": "USD", "given": False, "false_alarm": 1, "missed": 3})
    of = priced(reference_of(count=5000), task)
    rows = rows_of(World(turned=True), of, 1000, 1)
    seen = parts(rows, of, task, SETTINGS, 0)
    assert seen.world.low > 0 and abs(seen.traffic.value) < 0.2 * seen.world.value


def priced(reference: Reference, task: AnyFraming) -> Reference:
    """Return the reference with bands and loss in a framing's own loss; rows keep what grades them."""
    _, outputs, label = World().draw(5000, 7)
    loss, bands = task.loss(outputs, label), reference.bands
    by = np.searchsorted(bands.edges, graded(World().task, outputs), side="right")
    mean = [float(loss[by == b].mean()) for b in range(len(bands.rows))]
    spread = [float(loss[by == b].std()) for b in range(len(bands.rows))]
    figure = {"value": loss.mean(), "low": loss.mean() - 0.02, "high": loss.mean() + 0.02}
    changed = {"bands": bands.model_copy(update={"cost": mean, "spread": spread}), "loss": figure}
    return reference.model_copy(update={**changed, "unit": task.lost_in})


def test_the_same_rows_and_seed_give_the_same_figures(reference: Reference) -> None:
    """To the last digit."""
    rows = rows_of(World(shares=(0.7, 0.3)), reference, 1500, 3)
    for look in (performance, expected, parts, shares_now, concept):
        assert look(rows, reference, World().task, SETTINGS, 5) == look(rows, reference, World().task, SETTINGS, 5)
