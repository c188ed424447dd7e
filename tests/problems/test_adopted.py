"""Tables as people have them, adopted: what is decided, what is said, and what is left when it fails."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scratch import shop

from fieldbook import FieldbookError
from fieldbook.problems.adopt import Source, main
from fieldbook.problems.plan import Plan, Wish
from fieldbook.scope.settings import compose

ROOT = Path(__file__).parents[2]
N = 1500
SECOND = (
    pytest.mark.slow
)  # each composes conf/ anew; the first tier has the usual table, and what is looked at in notebooks


def orders(**columns: Any) -> pd.DataFrame:
    """Return the shop's hourly orders, with columns that replace its own or are added."""
    names = {"order": "order_id", "price": "amount", "sent_back": "returned"}
    return shop().head(N).rename(columns=names).assign(**columns)


BACK = (orders().returned == "yes").to_numpy()
RNG = np.random.default_rng(3)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the settings of a project, which is the working directory."""
    shutil.copytree(ROOT / "conf", tmp_path / "project" / "conf")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def adopt(table: pd.DataFrame, name: str = "orders.csv", **wish: Any) -> tuple[Plan, dict[str, Any]]:
    """Adopt a table from a file outside the project; return the plan and the settings that it composes to."""
    file = Path("..", name)
    table.to_csv(file, index=False)
    made = main(Source(str(file)), Wish(**wish))
    return made, yaml.safe_load(compose(Path("conf")))


def test_a_usual_table(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, settings = adopt(orders())
    assert (made.targets, made.as_of, made.key) == (["returned"], "placed", ["order_id"])
    assert list(settings["features"]["request"]) == ["placed", "amount", "kind", "weight"]
    assert settings["problem"]["source"] == "data/sources/orders.csv" and Path("data/sources/orders.csv").exists()
    assert settings["task"]["objective"] == "log_loss" and settings["task"]["costs"]["given"] is False
    said = capsys.readouterr().out
    request = json.loads(said.rpartition(" -d '")[2].strip().removesuffix("'"))
    assert list(request) == ["placed", "amount", "kind", "weight"] and request["placed"] == "2024-01-01T00:00"
    assert "copied to data/sources/orders.csv" in said and "make repro, then make serve" in said


NAMES = [
    "Order Date",
    "weight (kg)",
    "education-num",
    "a.b",
    "2ndFlr",
    "__x",
    "__dict__",
    "self",
    "größe",
    "a, b",
    "${x}",
    "class",
]


@SECOND
@pytest.mark.parametrize("name", NAMES)
def test_any_header_is_a_name(project: Path, name: str) -> None:
    _, settings = adopt(orders().rename(columns={"amount": name}), target=["returned"])
    assert name in settings["features"]["request"] and name in settings["features"]["groups"]["columns"]
    _, settings = adopt(orders().rename(columns={"returned": name}), "other.csv", target=[name])
    assert settings["problem"]["labels"][settings["scope"]["framing"]]["column"] == name


@SECOND
@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("2024.csv", "table_2024"),
        ("Häuser.csv", "häuser"),
        ("my orders (1).csv", "my_orders_1"),
        ("a.b.c.csv", "a"),
        ("__.csv", "table"),
    ],
)
def test_any_file_gives_a_name(project: Path, file: str, name: str) -> None:
    adopt(orders(), file)
    assert [path.stem for path in Path("conf/problem").glob("*.yaml") if path.stem != "flights"] == [name]


SEEN: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {  # columns, wish, what the plan must say
    "ids of seven digits": ({"order_id": np.arange(N) + 2987000}, {}, {"key": ["order_id"]}),
    "ids in any order": ({"order_id": RNG.permutation(4 * N)[:N] + 10**6}, {}, {"key": ["order_id"]}),
    "ids of eighteen digits": ({"order_id": np.arange(N) * 7919 + 10**17}, {}, {"key": ["order_id"]}),
    "words that are ids": ({"order_id": [f"A-{k:05d}" for k in range(N)]}, {}, {"key": ["order_id"]}),
    "users": ({"user": RNG.integers(10**6, 10**6 + 300, N)}, {}, {"cluster": "user"}),
    "a row number without a name": ({"Unnamed: 0": range(N)}, {}, {"out": ["order_id", "Unnamed: 0"]}),
    "an epoch in seconds": ({"placed": 1704067200 + 3600 * np.arange(N)}, {}, {"as_of": "placed"}),
    "a repair bill": ({"bill": pd.Series(RNG.gamma(2, 9, N)).where(BACK)}, {}, {"out": ["order_id", "bill"]}),
    "a bill of 0": ({"bill": np.where(BACK, RNG.gamma(2, 9, N), 0)}, {}, {"out": ["order_id", "bill"]}),
    "a reason": ({"why": np.where(BACK, RNG.choice(["small", "ugly"], N), "-")}, {}, {"out": ["order_id", "why"]}),
    "the answer in other words": ({"flag": np.where(BACK, 1, 0)}, {}, {"out": ["order_id", "flag"]}),
    "a bill that is wanted": (
        {"bill": pd.Series(RNG.gamma(2, 9, N)).where(BACK)}, {"keep": ["bill"]}, {"out": ["order_id"]}
    ),
    "a time that comes later": (
        {"closed": pd.date_range("2024-01-04", periods=N, freq="h").strftime("%Y-%m-%dT%H:%M")}, {},
        {"as_of": "placed", "out": ["order_id", "closed"]},
    ),
    "always the same": ({"shop": "Bern", "note": None}, {}, {"out": ["order_id", "shop", "note"]}),
    "no time, as was said": ({}, {"as_of": "none"}, {"as_of": None}),
}  # fmt: skip


@SECOND
@pytest.mark.parametrize("case", SEEN)
def test_what_a_column_is(project: Path, case: str) -> None:
    columns, wish, expected = SEEN[case]
    made, _ = adopt(orders(**columns), target=["returned"], **wish)
    for name, value in expected.items():
        held = getattr(made, name)
        assert (sorted(held) if name == "out" else held) == (sorted(value) if name == "out" else value), made.out


@SECOND
def test_parts_of_a_sum_are_no_features(project: Path) -> None:
    members, guests = RNG.poisson(50, N), RNG.poisson(20, N)
    made, settings = adopt(orders(members=members, guests=guests, riders=members + guests), target=["riders"])
    assert {"members", "guests"} <= set(made.out) and settings["task"]["kind"] == "regression"


TARGETS: dict[str, tuple[Any, dict[str, Any]]] = {
    "yes and no": (np.where(BACK, "Yes", "No"), {"kind": "binary", "positive": "returned", "negative": "not returned"}),
    "0 and 1": (BACK.astype(int), {"kind": "binary", "positive": "returned"}),
    "1 and 2": (BACK.astype(int) + 1, {"kind": "binary", "positive": "returned 2"}),
    "classes called None and NA": (
        np.where(BACK, "None", RNG.choice(["NA", "null"], N)), {"kind": "multiclass", "classes": ["NA", "None", "null"]}
    ),
    "numbers of seven digits": (np.where(BACK, 1000001, 1000002), {"kind": "binary"}),
    "stars": (RNG.integers(1, 6, N), {"kind": "multiclass", "classes": ["1", "2", "3", "4", "5"]}),
    "a price": (RNG.gamma(2, 20, N).round(2), {"kind": "regression", "objective": "rmse"}),
    "a class of two rows": (np.r_[["b", "b"], RNG.choice(["x", "y", "z"], N - 2)], {"classes": ["x", "y", "z"]}),
}  # fmt: skip


@SECOND
@pytest.mark.parametrize("case", TARGETS)
def test_what_is_asked(project: Path, case: str) -> None:
    values, expected = TARGETS[case]
    _, settings = adopt(orders(returned=values), target=["returned"])
    assert {name: settings["task"][name] for name in expected} == expected


@SECOND
def test_names_that_the_pipeline_or_json_has_are_changed_and_said(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, settings = adopt(orders().rename(columns={"amount": "split", "weight": 'the "weight"'}), target=["returned"])
    assert settings["problem"]["read"]["rename"] == {"split": "split_", 'the "weight"': "the _weight_"}
    assert {"split_", "the _weight_"} <= set(settings["features"]["request"])
    assert "'split' is called 'split_' from here on" in capsys.readouterr().out


@SECOND
def test_the_file_s_words_stay_in_the_service(project: Path) -> None:
    _, settings = adopt(orders(returned=np.where(BACK, "Yes", "No")))
    assert settings["scope"]["service"]["spellings"]["returned"] == ["Yes"]


@SECOND
def test_without_a_time_no_date_is_invented(project: Path) -> None:
    table = orders().drop(columns=["placed"]).sort_values("returned")
    made, settings = adopt(table, target=["returned"])
    assert made.as_of is None and settings["split"]["method"] in ("random", "cross")
    assert "2000" not in Path("conf/problem/orders.yaml").read_text().replace("rows: 2000", "")


@SECOND
def test_all_categories_and_a_single_text(project: Path) -> None:
    table = orders()[["kind", "returned"]].assign(shop=RNG.choice(list("abc"), N))
    assert adopt(table, "a.csv")[1]["heuristic"]["column"] in ("kind", "shop")
    words = [" ".join(RNG.choice(["good", "bad", "late", "fine", "very", "not"], 8)) + f" {k}" for k in range(N)]
    made, settings = adopt(pd.DataFrame({"review": words, "returned": np.where(BACK, "yes", "no")}), "b.csv")
    assert settings["features"]["derive"]["review_words"]["words"] == "review" and made.request == ["review"]
    assert settings["heuristic"]["column"].startswith("review_words_"), "the rule goes by one of the words"


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a day that may be a month": (
        {"placed": [f"0{1 + k % 9}/0{1 + k % 7}/2024 10:00" for k in range(N)]}, {"as_of": "placed"}, "--times 'placed="
    ),
    "forms that are mixed": (
        {"placed": ["2024-05-01T10:00", "31/12/2024"] * (N // 2)}, {"as_of": "placed"}, "750 not (row"
    ),
    "one value": ({"returned": "no"}, {"target": ["returned"]}, "there is nothing to learn"),
    "nothing to drop": ({}, {"drop": ["back"]}, "--drop 'back': there is no such column"),
    "no such column": ({}, {"target": ["back"]}, "--target 'back': there is no such column; there are order_id"),
    "two targets that are no events": ({}, {"target": ["returned", "kind"]}, "each must hold 0 and 1"),
    "a cost of another question": ({}, {"costs": {"over": 2.0}}, "--cost over: binary takes"),
}  # fmt: skip


@SECOND
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_adopted_is_told_and_leaves_nothing(project: Path, case: str) -> None:
    columns, wish, said = REFUSED[case]
    before = {file: file.read_bytes() for file in project.rglob("*") if file.is_file()}
    with pytest.raises(FieldbookError) as refused:
        adopt(orders(**columns), **wish)
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert {file: file.read_bytes() for file in project.rglob("*") if file.is_file()} == before


@SECOND
def test_what_the_owner_corrected_stays(project: Path) -> None:
    adopt(orders())
    path = Path("conf/problem/orders.yaml")
    path.write_text(
        path.read_text().replace(
            "given: false, unit: cost, false_alarm: 1, missed: 1", "unit: EUR, false_alarm: 1, missed: 7"
        )
    )
    main(Source("data/sources/orders.csv"), Wish(drop=["weight"]), force=True)
    settings = yaml.safe_load(compose(Path("conf"), ["scope.framings.returned.objective=expected_cost"]))
    assert settings["task"]["costs"] == {"unit": "EUR", "false_alarm": 1, "missed": 7}
    assert "weight" not in settings["features"]["request"]


@SECOND
def test_costs_that_are_given_decide(project: Path) -> None:
    _, settings = adopt(orders(), costs={"missed": 10.0, "false_alarm": 1.0}, unit="EUR")
    assert settings["task"]["objective"] == "expected_cost" and settings["task"]["limits"][0]["metric"] == "saving"
    assert settings["task"]["costs"] == {"unit": "EUR", "false_alarm": 1.0, "missed": 10.0}


@SECOND
def test_a_person_on_a_terminal_is_asked(project: Path) -> None:
    """Through a real terminal: every question has a proposal, and an empty line takes it."""
    orders().to_csv("orders.csv", index=False)
    command = [sys.executable, str(ROOT / "src"), "adopt", "orders.csv"]
    here, there = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "COLUMNS": "200"}
    process = subprocess.Popen(command, stdin=there, stdout=there, stderr=there, env=environment, close_fds=True)
    os.close(there)
    said, answers, until = "", ["", "", "yes", "", "10", "kind"], time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        if select.select([here], [], [], 0.2)[0]:
            try:
                said += os.read(here, 65536).decode(errors="replace")
            except OSError:
                break
            if (
                answers
                and said.rstrip(" ").endswith(":")
                and said.count("]:") + said.count("said):") > 6 - len(answers)
            ):
                os.write(here, f"{answers.pop(0)}\n".encode())
    process.wait(30)
    os.close(here)
    assert process.returncode == 0 and not answers, said
    settings = yaml.safe_load(compose(Path("conf")))
    assert settings["task"]["costs"] == {"unit": "cost", "false_alarm": 1.0, "missed": 10.0}
    assert settings["task"]["fairness"][0]["column"] == "kind"


@SECOND
def test_a_script_says_what_is_asked_for(project: Path) -> None:
    orders().to_csv("orders.csv", index=False)
    command = [sys.executable, str(ROOT / "src"), "adopt", "orders.csv"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment, check=False
    )
    assert (
        done.returncode == 1
        and done.stderr == "fieldbook: adopt: say --target COLUMN, or --yes to take what is proposed\n"
    )
