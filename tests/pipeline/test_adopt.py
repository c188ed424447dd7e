"""A table never seen before: adopted, run to the served answer; and then with everything that can be wrong in one."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from scratch import Project, copy_project, ran, told
from server import start

pytestmark = pytest.mark.slow
ROWS = 2400
FILE = "data/sources/shop.csv"


def shop() -> pd.DataFrame:
    """Return orders, hour by hour; whether one is sent back depends on price and kind."""
    rng = np.random.default_rng(7)
    price = rng.gamma(2, 20, ROWS).round(2)
    kind = rng.choice(["shoes", "books", "tools"], ROWS)
    back = rng.random(ROWS) < 1 / (1 + np.exp(1.5 - 0.03 * price - (kind == "shoes")))
    return pd.DataFrame(
        {
            "order": np.arange(ROWS),
            "placed": pd.date_range("2024-01-01", periods=ROWS, freq="h").strftime("%Y-%m-%dT%H:%M"),
            "price": price,
            "kind": kind,
            "weight": np.where(rng.random(ROWS) < 0.1, np.nan, rng.normal(2, 0.5, ROWS).round(2)),
            "sent_back": np.where(back, "yes", "no"),
        }
    )


@pytest.fixture(scope="module")
def adopted(shared: Path, bare: Project) -> Project:
    """Return a project that adopted the table and ran as far as the package. Copy it; do not change it."""
    path, done = shared / "adopted" / "project", shared / "adopted" / "done"
    with FileLock(f"{path.parent}.lock"):
        if not done.exists():
            project = copy_project(bare, path)
            shop().to_csv(project.path / FILE, index=False)
            project.do("python3", "src", "adopt", FILE, "--target=sent_back", "--as-of=placed", "--key=order")
            project.edit("conf/config.yaml", "- problem: flights", "- problem: shop")
            project.do("dvc", "repro", "bento")
            project.commit("a table, adopted")
            done.touch()
    return Project(path)


@pytest.fixture
def project(adopted: Project, tmp_path: Path) -> Iterator[Project]:
    """Return a copy of it for one test."""
    yield copy_project(adopted, tmp_path / "project")


def test_a_table_becomes_a_service(project: Project, tmp_path: Path) -> None:
    board = project.read("data/selection/leaderboard.json")
    best = next(row for row in board["models"] if row["model"] == board["champion"])
    assert best["roc_auc"]["low"] > 0.6, "price and kind tell something of it"
    server = start(project.path, tmp_path)
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
    "100,000 words": (
        lambda table: pd.concat([table] * 50).assign(
            order=range(50 * ROWS), kind=[f"kind {n % 100_000}" for n in range(50 * ROWS)]
        ),
        "train@logistic",
        ["kind has", "features.derive"],
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_wrong_table_is_told_in_one_line(adopted: Project, project: Project, fault: str) -> None:
    change, stage, expected = REFUSED[fault]
    change(shop()).to_csv(project.path / FILE, index=False)
    done = project.run("dvc", "repro", "package")
    assert done.returncode != 0 and ran(done)[-1] == stage, done.stdout
    assert len(told(done)) == 1, done.stdout
    assert [part for part in expected if part not in told(done)[0]] == [], told(done)[0]
    kept = ["data/champion", "data/selection", "data/bento"]
    assert project.files(*kept) == adopted.files(*kept), "what was good before is still there"


def test_an_empty_file_is_told_in_one_line(project: Project) -> None:
    (project.path / FILE).write_text("")
    done = project.run("dvc", "repro", "package")
    assert done.returncode != 0 and ran(done) == ["ingest"] and len(told(done)) == 1, done.stdout
    assert "shop.csv cannot be read" in told(done)[0]


def test_a_label_known_before_it_was_asked_for_is_refused(project: Project) -> None:
    table = shop().assign(known=lambda orders: "2023" + orders.placed.str[4:].str.replace("02-29", "02-28"))
    table.to_csv(project.path / FILE, index=False)
    project.edit("conf/problem/shop.yaml", "  as_of: placed", "  as_of: placed\n  label_time: known")
    project.edit("conf/problem/shop.yaml", "        sent_back:", "        known: {type: datetime}\n        sent_back:")
    done = project.run("dvc", "repro", "label")
    assert done.returncode != 0 and len(told(done)) == 1 and "label_time is before as_of" in told(done)[0], done.stdout


def test_splits_that_run_backwards_are_refused(project: Project) -> None:
    project.edit("conf/problem/shop.yaml", "  test: '2024", "  test: '2020")
    done = project.run("dvc", "repro", "split")
    assert done.returncode != 0 and len(told(done)) == 1, done.stdout
    assert "must be later than split.validation" in told(done)[0]


def test_a_stage_by_hand_names_what_it_lacks(bare: Project) -> None:
    done = bare.run("python3", "src", "split")
    assert done.returncode == 1 and told(done) == [
        "data/examples/examples.parquet is missing: run `dvc repro`, which makes it"
    ]


HANDLED: dict[str, tuple[Change, str]] = {  # what is done to the table, and what is said about it
    "half the labels missing": (
        lambda table: table.assign(sent_back=table.sent_back.where(table.index % 2 == 0)),
        "label: 1,200 of 2,400 examples have one",
    ),
    "a constant column": (lambda table: table.assign(weight=2.0), "weight holds the same in every training row"),
    "a column that is always missing": (lambda table: table.assign(weight=None), "weight holds the same"),
    "rows in no order": (lambda table: table.sample(frac=1, random_state=1), "label: 2,400 of 2,400"),
}


@pytest.mark.parametrize("oddity", HANDLED)
def test_an_odd_table_is_handled_and_said(adopted: Project, project: Project, oddity: str) -> None:
    change, said = HANDLED[oddity]
    change(shop()).to_csv(project.path / FILE, index=False)
    project.edit("conf/problem/shop.yaml", r"sent_back: \{type: str\}", "sent_back: {type: str, nullable: true}")
    done = project.do("dvc", "repro", "package")
    assert said in done.stdout, done.stdout
    if oddity == "rows in no order":
        assert project.files("data/features", "data/champion/model.onnx") == adopted.files(
            "data/features", "data/champion/model.onnx"
        ), "the order of rows means nothing where there is a time"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--target=nothing"], "--target 'nothing'"),
        (["--target=order", "--kind=multiclass"], "50 is the most"),
        (["--target=sent_back", "--as-of=kind"], "not every row has a time there"),
        (["--target=sent_back", "--positive=maybe"], "holds no, yes"),
    ],
)
def test_adopting_refuses_in_one_line(project: Project, options: list[str], said: str) -> None:
    before = project.files("conf")
    done = project.run("python3", "src", "adopt", FILE, "--name=other", *options)
    assert done.returncode == 1 and len(told(done)) == 1 and said in told(done)[0], done.stdout
    assert project.files("conf") == before


def test_adopting_does_not_overwrite(project: Project) -> None:
    done = project.run("python3", "src", "adopt", FILE, "--target=sent_back")
    assert done.returncode == 1 and "is there already" in told(done)[0], done.stdout
