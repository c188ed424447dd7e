"""What operators may switch on without a new model: corrected shares, decisions by lot; and the log of refusals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from server import Server, changed, launch, start

from fieldbook.core.interval import Draws, ends
from fieldbook.features.features import Features
from fieldbook.features.request import records
from fieldbook.observe.log import read
from fieldbook.package.reference import read_reference
from fieldbook.scope.framing import Framing
from fieldbook.serve.answer import outputs_of

Setting = Callable[[str, Any], Any]

pytestmark = pytest.mark.slow

ROWS = 4000


@pytest.fixture(scope="module")
def labelled(project: Path, setting: Setting, task: Framing) -> pd.DataFrame:
    """Return requests that no model has seen, as they are sent, with their labels."""
    if task.kind != "binary":
        pytest.skip("the shift is made by drawing rows by their label, of which there must be two")
    examples = pd.read_parquet(project / "data/examples/examples.parquet").set_index("example_id")
    splits = pd.read_parquet(project / "data/splits/splits.parquet").set_index("example_id").split
    unseen = examples.label[splits.reindex(examples.index).isin(["test", "production"])].dropna()
    requests = pd.read_parquet(project / "data/features/requests.parquet")
    if requests.index.name != "example_id" and "example_id" in requests:
        requests = requests.set_index("example_id")
    some = unseen[unseen.index.isin(requests.index)].sample(min(len(unseen), 20_000), random_state=1)
    sent = records(requests.loc[some.index], setting("features", Features).request)
    return pd.DataFrame({"sent": sent, "label": some.to_numpy(dtype=float)})


@pytest.fixture(scope="module")
def shares(project: Path, task: Framing) -> tuple[float, float]:
    """Return the share of the event in the reference, and another to which it may move."""
    bands = read_reference(project / "data/bento/src/data/champion").bands
    before = float(np.average(bands.events[task.columns[0]], weights=bands.rows))
    return before, 0.6 if before < 0.4 else 0.2


@pytest.fixture(scope="module")
def corrected(
    project: Path, task: Framing, shares: tuple[float, float], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that corrects its probabilities to the other share."""
    told = {"FIELDBOOK_SHARES": json.dumps({task.columns[0]: shares[1]})}
    server = start(project, tmp_path_factory.mktemp("corrected"), **told)
    yield server
    server.stop()


def drawn(labelled: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """Return rows of which such a share has the event; each outcome looks as it does."""
    parts = [
        labelled[labelled.label == label].sample(round(ROWS * part), replace=True, random_state=seed)
        for label, part in ((1.0, share), (0.0, 1 - share))
    ]
    return pd.concat(parts)


def losses(server: Server, rows: pd.DataFrame, task: Framing) -> np.ndarray:
    """Return what the answers of a server lose, (rows,)."""
    outputs = []
    for at in range(0, len(rows), 500):
        answer = server.client.post("/predict", json=rows.sent.iloc[at : at + 500].tolist())
        assert answer.status_code == 200, answer.text
        outputs.append(outputs_of(answer.json(), task))
    return task.loss(np.vstack(outputs), rows.label.to_numpy())


def saved(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    """Return what 1,000 rows lose less, with an interval."""
    draws = Draws(np.arange(len(before)), 300, seed=1)
    return ends(1000 * draws.mean(before - after), 0.95)


def test_a_correction_gains_where_the_shares_have_moved_and_harms_where_they_have_not(
    server: Server, corrected: Server, labelled: pd.DataFrame, shares: tuple[float, float], task: Framing
) -> None:
    """The same rows asked of both servers: once with the shares that were told, once with those of the reference."""
    before, after = shares
    figures = {}
    for name, share in (("moved", after), ("as before", before)):
        rows = drawn(labelled, share, seed=3)
        figures[name] = saved(losses(server, rows, task), losses(corrected, rows, task))
    print({name: [round(value) for value in figure] for name, figure in figures.items()})
    assert figures["moved"][1] > 0, f"nothing is gained: {figures}"
    assert figures["as before"][2] < 0, f"nothing is lost: {figures}"


def test_a_correction_is_said_everywhere(
    server: Server, corrected: Server, manifest: dict[str, Any], task: Framing, shares: tuple[float, float]
) -> None:
    """In the log, so that it can be undone; at /model; on the dashboard. Without it there is no trace of it."""
    request, name = manifest["samples"][0]["request"], task.columns[0]
    for one, on in ((server, False), (corrected, True)):
        one.client.post("/predict", json=request, headers={"X-Request-ID": "a-sample"})
        row = read(one.logs).set_index("request_id").loc["a-sample"]
        assert (f"shares.{name}" in row) == on and "propensity" not in row
        assert one.client.get("/model").json().get("shares") == ({name: shares[1]} if on else None)
        assert ("corrected to" in one.client.get("/dashboard").text) == on


@pytest.mark.parametrize("shares", ["much", "nobody=0.3", "{"])
def test_shares_that_are_none_refuse_the_start(project: Path, tmp_path: Path, shares: str) -> None:
    """In one line, which names the variable."""
    server = launch(project, tmp_path, FIELDBOOK_SHARES=shares)
    assert server.process.wait(timeout=60) != 0
    (line,) = {line for line in server.output.read_text().splitlines() if line.startswith("fieldbook: ")}
    assert line.startswith("fieldbook: FIELDBOOK_SHARES ")


def test_decisions_by_lot_are_said_and_logged(
    project: Path, tmp_path: Path, manifest: dict[str, Any], task: Framing
) -> None:
    """A share of them, each word alike; what the log says of their probability is what happened."""
    if not task.has_classes:
        pytest.skip("there is no single decision to draw")
    server = start(project, tmp_path, changed(project, tmp_path, explore={"share": 0.4}))
    try:
        for _ in range(10):
            answers = server.client.post("/predict", json=[manifest["samples"][0]["request"]] * 200).json()
    finally:
        server.stop()
    rows, words = read(server.logs), task.words
    assert {answer["explored"] for answer in answers} == {True, False}
    assert abs(rows.explored.mean() - 0.4) < 0.05
    usual = rows.decision[~rows.explored].unique()
    assert len(usual) == 1 and set(rows.decision) == set(words)
    for word in words:
        own = rows[rows.decision == word]
        assert own.propensity.nunique() == 1 and abs(len(own) / len(rows) - own.propensity.iloc[0]) < 0.04
        assert abs((1 / own.propensity).sum() / len(rows) - 1) < 0.15, "weighed, each stands for all"


def test_what_is_refused_is_counted_in_a_log_without_values(
    project: Path, tmp_path: Path, manifest: dict[str, Any]
) -> None:
    """A thousand requests leave a few lines; the fields are the contract's, the rest is `(other)`."""
    request = manifest["samples"][0]["request"]
    field = next(name for name, column in manifest["request"].items() if column["type"] in ("int", "float"))
    server = start(project, tmp_path)
    try:
        for _ in range(300):
            assert server.client.post("/predict", json={**request, field: "a secret"}).status_code == 422
        assert server.client.post("/predict", json={**request, "invented": 1}).status_code == 422
    finally:
        server.stop()
    written = "".join(path.read_text() for path in server.logs.glob("refused-*.jsonl"))
    counts = read(server.logs, "refused").groupby("field")["count"].sum().to_dict()
    assert counts == {field: 300, "(other)": 1} and len(written.splitlines()) < 20
    assert "secret" not in written and "invented" not in written
