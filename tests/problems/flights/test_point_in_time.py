"""Features see the past only: shuffle the future, and nothing may move."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from fieldbook.data.label import check_examples
from fieldbook.scope.framing import Framing
from fieldbook.scope.problem import Problem

Tables = dict[str, pd.DataFrame]
OUTCOMES = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"]


@pytest.fixture(scope="module")
def six_weeks(raw: Tables) -> Tables:
    """Return the raw tables with the flights of six weeks: enough for every look-back window."""
    flights = raw["flights"]
    kept = flights[(flights["month"] == 2) | ((flights["month"] == 3) & (flights["day"] <= 14))].reset_index(drop=True)
    return {**raw, "flights": kept}


def instants(problem: Any, tables: Tables) -> pd.DataFrame:
    """Return when each flight was scheduled, left and landed."""
    return problem._times(tables)


def shuffle_future(problem: Problem, tables: Tables, now: pd.Timestamp, rng: np.random.Generator) -> Tables:
    """Return the tables with everything that became known after `now` shuffled.

    Outcomes of flights that had neither left nor were due to leave are permuted among themselves. Flights that should
    have left and had not are delayed further; those in the air arrive at some other later time. Weather after `now` is
    permuted. Nothing known by `now` is touched, and nothing unknown becomes known earlier.
    """
    flights, weather = tables["flights"].copy(), tables["weather"].copy()
    when = instants(problem, tables)
    later = (
        (when["scheduled"] > now + pd.Timedelta("2h")) & (when["departed"].isna() | (when["departed"] > now))
    ).to_numpy()
    order = rng.permutation(np.flatnonzero(later))
    flights.loc[later, OUTCOMES] = flights.loc[order, OUTCOMES].to_numpy()
    waiting = ~later & (when["departed"] > now).to_numpy()
    flights.loc[waiting, "dep_delay"] += rng.integers(1, 300, waiting.sum())
    aloft = ~later & (when["arrived"] > now).to_numpy()
    flights.loc[aloft, "arr_delay"] += rng.integers(1, 300, aloft.sum())
    unseen = (weather["time_hour"] > now).to_numpy()
    columns = [name for name in weather if name not in ("origin", "time_hour")]
    weather.loc[unseen, columns] = weather.loc[rng.permutation(np.flatnonzero(unseen)), columns].to_numpy()
    return {**tables, "flights": flights, "weather": weather}


@pytest.mark.parametrize("now", ["2013-03-08 11:00", "2013-03-08 22:30", "2013-03-10 16:05"])
def test_no_feature_moves_when_the_future_is_shuffled(
    problem: Problem, task: Framing, six_weeks: Tables, now: str
) -> None:
    """Everything known after the as-of time is shuffled; request fields of examples up to then stay bit for bit."""
    moment, rng = pd.Timestamp(now), np.random.default_rng(7)
    changed = shuffle_future(problem, six_weeks, moment, rng)
    assert not changed["flights"][OUTCOMES].equals(six_weeks["flights"][OUTCOMES]), "the shuffle must change something"
    examples = check_examples(problem.examples(six_weeks, "late"), task)
    examples = examples[examples["as_of"] <= moment]
    assert len(examples) > 30_000
    before, after = problem.observe(examples, six_weeks), problem.observe(examples, changed)
    moved = [name for name in before if not before[name].equals(after[name])]
    assert moved == [], "these fields of past examples changed when only the future did"


def test_the_shuffle_would_catch_a_leak(problem: Problem, task: Framing, six_weeks: Tables) -> None:
    """Examples after the moment do move: the test above is able to fail."""
    moment = pd.Timestamp("2013-03-08 11:00")
    changed = shuffle_future(problem, six_weeks, moment, np.random.default_rng(7))
    examples = check_examples(problem.examples(six_weeks, "late"), task)
    examples = examples[(examples["as_of"] > moment) & (examples["as_of"] < moment + pd.Timedelta("2D"))]
    before, after = problem.observe(examples, six_weeks), problem.observe(examples, changed)
    moved = {name for name in before if not before[name].equals(after[name])}
    looking_back = {"temperature", "origin_delay", "carrier_delay", "destination_delay", "aircraft_departure_delay"}
    assert looking_back | {"aircraft_arrival_delay", "route_late_rate", "flight_late_rate"} <= moved


def test_every_flight_is_an_example(raw: Tables, problem: Problem) -> None:
    """No flight is dropped, and those without an outcome say why."""
    examples = problem.examples(raw, "late")
    flights = raw["flights"]
    assert len(examples) == len(flights) == 336_776
    counts = examples["outcome"].value_counts()
    assert counts["cancelled"] == flights["dep_time"].isna().sum() == 8_255
    assert counts["diverted"] == 9_430 - 8_255
    assert counts["late"] == (flights["arr_delay"] >= 15).sum()
    assert examples["label"].isna().sum() == 9_430
