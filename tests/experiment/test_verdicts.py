"""Statistics of a rollout against other people's, and against what they promise."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fieldbook.experiment.adjust import running, stratified
from fieldbook.experiment.horizon import Design, Horizon, horizon, labels, read_out
from fieldbook.experiment.mismatch import looks, mismatch
from fieldbook.experiment.sequential import bounds, crossing
from fieldbook.experiment.trial import Trial
from fieldbook.experiment.verdict import Seen, history, settled, verdict

DESIGN = Design(
    worthwhile=0.05,
    error=0.05,
    power=0.8,
    looks=14,
    harm=0.01,
    least=20,
    mismatch=0.0005,
    failing=0.01,
    slower=2,
    signal=0.1,
)
START = np.datetime64("2013-04-01", "ms")


def trial(rows: int, seed: int, saves: float = 0.0, share: float = 0.5, per_unit: int = 1) -> Trial:
    """Return a trial of made rows, a minute apart, whose outcomes come within three hours."""
    rng = np.random.default_rng(seed)
    treated = np.repeat(rng.random(rows // per_unit) < share, per_unit)
    hard = np.repeat(rng.gamma(2, 15, rows // per_unit), per_unit)
    luck = np.repeat(rng.random(rows // per_unit), per_unit)
    at = START + np.arange(rows) * np.timedelta64(1, "m")
    return Trial(
        treated=treated,
        time=at,
        unit=np.repeat(np.arange(rows // per_unit), per_unit),
        loss=100.0 * (luck < hard / 100 * (1 - saves * treated)),
        known=at + (3 * rng.random(rows) * 3_600_000).astype("timedelta64[ms]"),
        expected=hard,
        failed=np.zeros(rows, dtype=bool),
        milliseconds=rng.lognormal(0, 0.4, rows),
        share=share,
    )


END = START + np.timedelta64(60, "D")


def test_the_length_of_a_fixed_test_is_tea_tastings() -> None:
    """Our closed form, without adjustment and with, against its power analysis: within 2 %."""
    import tea_tasting as tt

    of = trial(20_000, 0)
    data = pd.DataFrame({"loss": of.loss, "expected": of.expected})
    for covariate in (None, "expected"):
        mean = tt.Mean("loss", covariate, alternative="greater", alpha=0.05, power=0.8, effect_size=1.5)
        theirs = mean.solve_power(data, "n_obs")[0].n_obs / 2
        reach = horizon(of.loss, of.expected if covariate else None, of.unit, DESIGN, 1.5)
        ours = labels(reach.spread, 1.5, DESIGN.error, DESIGN.power)
        assert ours == pytest.approx(theirs, rel=0.02)


def test_a_read_out_of_fixed_size_is_ours() -> None:
    """The last difference, adjusted, and its error, against tea-tasting's read-out with the same covariate."""
    of = trial(20_000, 1, saves=0.1)
    theirs = read_out(of)
    ours = running(of.treated, of.unit, of.loss, of.expected, at=np.array([len(of)]))
    assert ours.difference[0] == pytest.approx(theirs["difference"], rel=0.01)
    assert (theirs["high"] - theirs["low"]) / 2 == pytest.approx(1.96 * ours.error[0], rel=0.01)
    by_class, error = stratified(of.treated, of.loss, of.expected)
    assert abs(by_class - ours.difference[0]) < error
    assert theirs["mismatch"] > 0.0005 and not mismatch(of.treated, 0.5).found


def test_exact_tests_of_shares_are_scipys() -> None:
    """At the looks, p is that of the binomial test, two tails of equal weight."""
    treated = np.random.default_rng(1).random(700) < 0.48
    size = int(looks(700)[-1])
    count = int(treated[:size].sum())
    below, above = stats.binom.cdf(count, size, 0.5), stats.binom.sf(count - 1, size, 0.5)
    found = mismatch(treated, 0.5)
    assert found.units == size and not found.found and found.p == pytest.approx(2 * min(below, above))


@pytest.mark.parametrize("spending", ["obrien-fleming", "pocock"])
def test_bounds_keep_their_error_in_simulated_walks(spending: str) -> None:
    """Looks at uneven shares: 20,000 walks without drift cross in 2.5 %, and with drift as often as computed."""
    shares = (0.1, 0.25, 0.5, 0.6, 1.0)
    limits = np.array(bounds(shares, 0.025, spending))
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(20_000, 5)) * np.sqrt(np.diff([0.0, *shares]))
    for drift in (0.0, 2.5):
        z = (np.cumsum(steps, axis=1) + drift * np.array(shares)) / np.sqrt(shares)
        wanted = crossing(limits, shares, drift).sum()
        assert (z > limits).any(axis=1).mean() == pytest.approx(wanted, abs=4 * np.sqrt(wanted * (1 - wanted) / 20_000))


def test_whoever_asks_often_hears_the_same() -> None:
    """Asked every twelve hours or once at the end: the first end and its look are one."""
    of, reach = trial(20_000, 3, saves=0.15), Horizon(labels=6000, worthwhile=1.0, spread=45.0, loss=30.0)
    heard = [verdict(of, START + np.timedelta64(12 * i, "h"), DESIGN, reach, 3) for i in range(1, 30)]
    ends = [one for one in heard if one.state == "promote"]
    state, moment = settled(Seen(of, END, DESIGN, reach, 3), DESIGN)
    first = START + np.timedelta64(12 * (1 + [one.state for one in heard].index("promote")), "h")
    assert state == "promote" and first - np.timedelta64(12, "h") < moment <= first
    assert len({str(one.evidence["look"]) for one in ends}) == 1
    early = history(of, START + np.timedelta64(8, "D"), DESIGN, reach, 3)
    assert early == history(of, END, DESIGN, reach, 3)[: len(early)]


def test_late_outcomes_are_not_taken_for_all() -> None:
    """Losses are told a day late: read as they come, all looks cheap. Rows count when they are old enough."""
    of = trial(4000, 4)
    slow = np.where(of.loss > 0, np.timedelta64(30, "h"), np.timedelta64(1, "h"))
    late = replace(of, known=of.time + slow)
    now = START + np.timedelta64(2, "D")
    hasty, patient = Seen(late, now, DESIGN, _near(), 0), Seen(late, now, DESIGN, _near(), 30)
    seen = late.as_of(now)
    assert np.nanmean(seen.loss) < 0.7 * of.loss[: len(seen)].mean()
    assert hasty.waiting == 0 and patient.waiting == 1799 and patient.size < hasty.size
    assert verdict(late, now, DESIGN, _near(), 30).evidence["waiting"] == 1799


def _near() -> Horizon:
    return Horizon(labels=3000, worthwhile=2.0, spread=45.0, loss=30.0)


def test_rows_of_a_unit_do_not_count_as_many() -> None:
    """Ten rows that share their luck: sixty rollouts of an equal challenger, hardly any promoted or rolled back."""
    ends = [settled(Seen(trial(6000, seed, per_unit=10), END, DESIGN, _near(), 3), DESIGN) for seed in range(60)]
    states = [end[0] for end in ends if end]
    assert states.count("promote") <= 9 and states.count("roll back") <= 3 and "mismatch" not in states


def test_a_share_of_a_tenth_is_judged_too() -> None:
    """An A/B test of 10 to 90: the planned share is no mismatch, and a challenger that saves much is promoted."""
    found = verdict(trial(30_000, 5, saves=0.25, share=0.1), END, DESIGN, _near(), 3)
    assert found.state == "promote" and found.evidence["dealt"]["found"] is False


def test_what_cannot_be_computed_says_so() -> None:
    """No rows, one arm only, no outcome, no covariate, all the same: a verdict each, and JSON without NaN."""
    of = trial(2000, 6)
    nothing = np.full(2000, np.nan)
    cases = {
        "nothing": of.take(np.zeros(2000, dtype=bool)),
        "one arm": of.take(~of.treated),
        "no outcome": replace(of, loss=nothing, known=np.full(2000, np.datetime64("NaT"), "datetime64[ms]")),
        "no covariate": replace(of, expected=nothing),
        "all the same": replace(of, loss=np.zeros(2000)),
    }
    states = {}
    for name, case in cases.items():
        found = verdict(case, END, DESIGN, _near(), 3)
        states[name] = found.state
        assert "nan" not in found.model_dump_json().lower(), name
    assert states["nothing"] == "too few" and states["one arm"] in ("too few", "mismatch")
    assert states["no outcome"] == "go on" and states["all the same"] == "go on"


@pytest.mark.slow
def test_many_rollouts_keep_what_is_promised() -> None:
    """Made rows, 14 looks, a challenger that is as good: wrong in 5 % and 1 %, with an allowance for chance."""
    runs, reach = 400, Horizon(labels=1400, worthwhile=5.0, spread=45.0, loss=30.0)
    states = [settled(Seen(trial(3200, seed), END, DESIGN, reach, 3), DESIGN) for seed in range(runs)]
    count = [state for state, _ in filter(None, states)].count
    assert stats.binomtest(count("promote"), runs, 0.05, "greater").pvalue > 0.001
    assert stats.binomtest(count("roll back"), runs, 0.01, "greater").pvalue > 0.001
    assert count("promote") > 0.02 * runs and count("mismatch") <= 0.01 * runs
