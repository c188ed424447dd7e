"""What the monitor says of real months after the reference's end, held against what came."""

from __future__ import annotations

from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest

from fieldbook.core.interval import Evaluate
from fieldbook.model.train import predict
from fieldbook.monitor.expected import expected
from fieldbook.monitor.parts import parts
from fieldbook.monitor.performance import performance
from fieldbook.monitor.ripe import FLOOR, as_of, chances_known, weights
from fieldbook.monitor.rows import Rows
from fieldbook.package.reference import Reference, graded, read_reference
from fieldbook.scope.framing import Framing

pytestmark = pytest.mark.slow
SETTINGS = Evaluate(replicates=100, confidence=0.95, bins=15, metrics=["roc_auc"])
MONTHS = ["2013-09", "2013-10", "2013-11", "2013-12"]


@pytest.fixture(scope="module")
def reference(project: Path) -> Reference:
    """Return what the champion knew."""
    return read_reference(project / "data/champion")


@pytest.fixture(scope="module")
def rows(project: Path, reference: Reference, task: Framing) -> Rows:
    """Return the predictions of the months after it, in the order of time."""
    features = pd.read_parquet(project / "data/features/features.parquet")
    features = features[features["split"].isin(["test", "production"])].sort_values("as_of", kind="stable")
    requests = pd.read_parquet(project / "data/features/requests.parquet").set_index("example_id")
    requests = requests.loc[features["example_id"]]
    outputs = predict(joblib.load(project / "data/selection/champion/model.joblib"), features, task)
    sources = {"field": requests, "feature": features, "score": pd.DataFrame(outputs, columns=task.columns)}
    codes = {
        name: _codes(reference, name, sources[name.split(":")[0]][name.split(":")[1]])
        for name in reference.streams
        if name.split(":")[0] in sources
    }
    label = features["label"].to_numpy(float)
    known = np.where(np.isfinite(label), features["label_time"].to_numpy("datetime64[ms]"), np.datetime64("NaT"))
    count = len(features)
    return Rows(
        time=features["as_of"].to_numpy("datetime64[ms]"),
        ids=features["example_id"].to_numpy(str),
        codes=codes,
        numbers={},
        outputs=outputs,
        graded=graded(task, outputs),
        label=label,
        known=known,
        fallback=np.zeros(count, bool),
        decision=task.acts(outputs).astype(int),
        propensity=np.ones(count),
    )


def _codes(reference: Reference, name: str, values: pd.Series) -> np.ndarray:
    bins = reference.streams[name].bins
    return bins.codes(values.to_numpy(float) if bins.edges else values.astype(object).to_numpy())


@pytest.mark.parametrize("month", MONTHS)
def test_expected_loss_and_auc_are_near_to_what_came(
    rows: Rows, reference: Reference, task: Framing, month: str
) -> None:
    """Within a fifth, on the right side of the reference, and the AUC within 0.03."""
    window = rows.take(rows.time.astype("datetime64[M]") == np.datetime64(month))
    came, foreseen = (look(window, reference, task, SETTINGS, 0) for look in (performance, expected))
    usual = 1000 * reference.loss["value"]
    assert abs(foreseen.loss.value / came.whole.loss.value - 1) < 0.2
    assert (foreseen.loss.value > usual) == (came.whole.loss.value > usual)
    assert abs(foreseen.metrics["roc_auc"].value - came.metrics["roc_auc"].value) < 0.03


@pytest.mark.parametrize("month", MONTHS)
def test_a_season_is_not_taken_for_label_shift(rows: Rows, reference: Reference, task: Framing, month: str) -> None:
    """Its traffic fits no mixture of outcomes, so the shares add nothing, and the parts still add up."""
    window = rows.take(rows.time.astype("datetime64[M]") == np.datetime64(month))
    seen = parts(window, reference, task, SETTINGS, 0)
    assert seen.shares.value == 0 and not seen.explained.fits
    assert seen.traffic.value + seen.world.value == pytest.approx(seen.change.value, rel=1e-4, abs=0.1)


def test_early_outcomes_are_too_good_and_weights_mend_most_of_it(
    rows: Rows, reference: Reference, task: Framing
) -> None:
    """Of the last 24 hours, each evening from September to December."""
    errors, hours = [], np.timedelta64(24, "h")
    for day in np.arange("2013-09-03", "2013-12-30", dtype="datetime64[D]"):
        now = day.astype("datetime64[ms]") + np.timedelta64(20, "h")
        window = rows.since(now - hours, now)
        then, came = as_of(window, now), np.isfinite(window.label)
        old = came & (chances_known(then, reference.delays, now).min(axis=1) >= FLOOR)
        weight = weights(then, task, reference.delays, now)
        mended = np.average(np.nan_to_num(then.label), weights=weight)
        errors.append([np.nanmean(then.label) - window.label[came].mean(), mended - window.label[old].mean()])
    naive, mended = np.mean(errors, axis=0)
    assert naive < -0.015 and abs(mended) < 0.5 * abs(naive)
