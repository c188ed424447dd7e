"""A table of one's own, from a file to the served answer; and then with everything that can be wrong in one."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from scratch import FILE, ROWS, Project, errors, ran, shop
from server import start

SECOND = pytest.mark.slow


def test_a_table_becomes_a_service(base: Project, tmp_path: Path) -> None:
    board = base.read("data/selection/leaderboard.json")
    best = next(row for row in board["models"] if row["model"] == board["champion"])
    assert best["roc_auc"]["low"] > 0.6, "price and kind tell something of it"
    server = start(base.path, tmp_path)
    try:
        order = {"placed": "2024-05-01T12:00", "price": 150.0, "kind": "shoes", "weight": None}
        dear = server.client.post("/predict", json=order).json()
        cheap = server.client.post("/predict", json=order | {"price": 5.0, "kind": "books"}).json()
        assert dear["decision"] == "sent_back" and dear["probability"] > cheap["probability"] + 0.3, (dear, cheap)
        assert server.client.post("/predict", json=order | {"price": "much"}).status_code == 422
    finally:
        server.stop(signal.SIGKILL)


Change = Callable[[pd.DataFrame], pd.DataFrame]
REFUSED: dict[str, tuple[Change, str, list[str]]] = {  # what is done to the table, the stage that refuses, what it says
    "no rows": (lambda table: table.head(0), "ingest", ["shop.csv has no rows"]),
    "one row": (lambda table: table.head(1), "split", ["split train has", "move the days in conf: split"]),
    "one class": (lambda table: table.assign(sent_back="no"), "split", ["split train has only the label 0"]),
    "key twice": (lambda table: pd.concat([table, table.iloc[[5]]]), "ingest", ["order", "'unique key'", "2 rows"]),
    "text in numbers": (
        lambda table: table.astype({"price": object}).assign(price=lambda t: t.price.where(t.index != 3, "dear")),
        "ingest",
        ["column price", "'type float'", "row 3: 'dear'"],
    ),
    "unknown column": (lambda table: table.assign(colour="red"), "ingest", ["column colour", "conf/problem/"]),
    "column gone": (lambda table: table.drop(columns="weight"), "ingest", ["column weight", "missing"]),
    "column all null": (lambda table: table.assign(price=None), "ingest", ["column price", "'no missing values'"]),
    "no time": (
        lambda table: table.assign(placed=table.placed.where(table.index != 9, "soon")),
        "ingest",
        ["column placed", "'type datetime'", "'soon'"],
    ),
}


@pytest.mark.parametrize("fault", [pytest.param(name, marks=[] if name == "key twice" else SECOND) for name in REFUSED])
def test_a_wrong_table_is_told_in_one_line(base: Project, project: Project, fault: str) -> None:
    """Under DVC, which removes the outputs of a stage before it runs: what was good before is still there."""
    change, stage, parts = REFUSED[fault]
    change(shop()).to_csv(project.path / FILE, index=False)
    done = project.run("dvc", "repro", "package")
    assert done.returncode != 0 and ran(done)[-1] == stage, done.stdout
    assert len(errors(done)) == 1, done.stdout
    assert [part for part in parts if part not in errors(done)[0]] == [], errors(done)[0]
    same = ["data/raw", "dvc.lock"] if stage == "ingest" else []
    same += ["data/champion", "data/selection", "data/bento", "params.yaml"]
    assert project.files(*same) == base.files(*same)


@SECOND
def test_an_empty_file_is_told_in_one_line(project: Project) -> None:
    (project.path / FILE).write_text("")
    done = project.run("dvc", "repro", "package")
    assert done.returncode != 0 and ran(done) == ["ingest"] and len(errors(done)) == 1, done.stdout
    assert "shop.csv cannot be read" in errors(done)[0]


@SECOND
def test_a_label_known_before_it_was_asked_for_is_refused(project: Project) -> None:
    table = shop().assign(known=lambda orders: "2023" + orders.placed.str[4:].str.replace("02-29", "02-28"))
    table.to_csv(project.path / FILE, index=False)
    project.set("problem.label_time", "known")
    project.set("ingest.tables.rows.columns.known", {"type": "datetime"})
    done = project.run("dvc", "repro", "label")
    assert done.returncode != 0 and len(errors(done)) == 1 and "label_time is before as_of" in errors(done)[0], (
        done.stdout
    )


@SECOND
def test_splits_that_run_backwards_are_refused(project: Project) -> None:
    project.set("split.test", "2020-03-16")
    done = project.run("dvc", "repro", "split")
    assert done.returncode != 0 and len(errors(done)) == 1, done.stdout
    assert "must be later than split.validation" in errors(done)[0]


def test_a_stage_by_hand_names_what_it_lacks(bare: Project) -> None:
    done = bare.run("python3", "src", "split")
    assert done.returncode == 1 and errors(done) == [
        "data/examples/examples.parquet is missing: run `dvc repro`, which makes it"
    ]


def let_labels_be_missing(project: Project) -> None:
    """Say in conf/ that not every order has an outcome."""
    project.set("ingest.tables.rows.columns.sent_back.nullable", True)


HANDLED: dict[str, tuple[Change, list[str]]] = {  # what is done to the table, and what is said about it
    "half the labels missing, and a constant column": (
        lambda table: table.assign(sent_back=table.sent_back.where(table.index % 2 == 0), weight=2.0),
        ["label: 1,200 of 2,400 examples have one", "weight holds the same in every training row"],
    ),
    "a column that is always missing": (lambda table: table.assign(weight=None), ["weight holds the same"]),
    "more words than a column can be made of each": (
        lambda table: table.assign(kind=[f"kind {n % 900}" for n in range(ROWS)]),
        ["label: 2,400 of 2,400 examples have one"],
    ),
}


@SECOND
@pytest.mark.parametrize("oddity", HANDLED)
def test_an_odd_table_is_handled_and_said(project: Project, oddity: str) -> None:
    change, said = HANDLED[oddity]
    change(shop()).to_csv(project.path / FILE, index=False)
    let_labels_be_missing(project)
    done = project.do("dvc", "repro", "package")
    assert [text for text in said if text not in done.stdout] == [], done.stdout


@SECOND
def test_the_order_of_rows_means_nothing_where_there_is_a_time(base: Project, project: Project) -> None:
    shop().sample(frac=1, random_state=1).to_csv(project.path / FILE, index=False)
    done = project.do("dvc", "repro", "package")
    assert "label: 2,400 of 2,400" in done.stdout, done.stdout
    assert not [name for name in ran(done) if name.startswith("train@")]
    same = ["data/features", "data/champion/model.onnx"]
    assert project.files(*same) == base.files(*same)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--name=other", "--target=nothing"], "--target 'nothing'"),
        (["--name=other", "--target=order", "--kind=multiclass"], "50 is the most"),
        (["--name=other", "--target=sent_back", "--as-of=kind"], "kind: its fields are no times"),
        (["--name=other", "--target=sent_back", "--positive=maybe"], "holds no, yes"),
        (["--target=sent_back"], "is there already"),
    ],
)
def test_adopting_refuses_in_one_line(project: Project, options: list[str], said: str) -> None:
    before = project.files("conf")
    done = project.run("python3", "src", "adopt", FILE, *options)
    assert done.returncode == 1 and len(errors(done)) == 1 and said in errors(done)[0], done.stdout
    assert project.files("conf") == before
