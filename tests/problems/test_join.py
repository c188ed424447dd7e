"""Two tables joined as of a time: nothing looks ahead, and what is joined is a field as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scratch import Project, copy_tree, errors, settle, shop

from fieldbook import FieldbookError
from fieldbook.data.ingest import check
from fieldbook.examine.finding import Leakage
from fieldbook.examine.lookahead import future
from fieldbook.problems.table import Tabular
from fieldbook.scope.column import Table
from fieldbook.scope.problem import build_problem

pytestmark = pytest.mark.slow  # the notebooks' examples are in the first tier

ORDERS = 400
CONTRACTS = {
    "rows": Table(
        key=["order"],
        columns={
            "order": {"type": "int"},
            "customer": {"type": "str"},
            "placed": {"type": "datetime"},
            "back": {"type": "str"},
        },
        known_at="placed",
    ),
    "grades": Table(
        key=[],
        columns={
            "customer": {"type": "str"},
            "changed": {"type": "datetime"},
            "grade": {"type": "float"},
            "town": {"type": "str"},
        },
        known_at="changed",
    ),
}


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return orders, and what became known of customers, in no order."""
    rng = np.random.default_rng(3)
    hours = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(ORDERS), unit="h")
    orders = pd.DataFrame({"order": range(ORDERS), "customer": rng.choice(list("abcd"), ORDERS), "placed": hours})
    when = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, ORDERS, 60), unit="h")
    grades = pd.DataFrame({"customer": rng.choice(list("abc"), 60), "changed": when, "grade": np.arange(60.0)})
    return orders.assign(back=rng.choice(["yes", "no"], ORDERS)), grades.assign(town=rng.choice(["A", "B"], 60))


def problem(folder: Path, orders: pd.DataFrame, grades: pd.DataFrame, **join: Any) -> Tabular:
    """Write both tables and return the problem, built as the pipeline does."""
    orders.to_csv(folder / "orders.csv", index=False)
    grades.to_csv(folder / "grades.csv", index=False)
    settings = {"source": str(folder / "grades.csv"), "on": "customer", "as_of": "changed", **join}
    return build_problem(
        {
            "_target_": "fieldbook.problems.table.Tabular",
            "source": str(folder / "orders.csv"),
            "labels": {"back": {"column": "back", "equals": "yes"}},
            "key": ["order"],
            "as_of": "placed",
            "join": [settings],
        }
    )


def seen(problem: Tabular) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, pd.DataFrame]]:
    """Return the fields of all examples, the examples, and the tables as their contracts give them."""
    raw = {name: check(name, frame, CONTRACTS[name]) for name, frame in problem.ingest().items()}
    examples = problem.examples(raw, "back")
    return problem.observe(examples, raw), examples, raw


def test_each_example_gets_the_last_row_known_at_its_time(tmp_path: Path) -> None:
    orders, grades = tables()
    fields, _, _ = seen(problem(tmp_path, orders, grades))
    for row, order in orders[::8].iterrows():
        known = grades[(grades.customer == order.customer) & (grades.changed <= order.placed)]
        latest = known[known.changed == known.changed.max()].grade.tolist()
        found = fields.loc[row, "grades_grade"]
        assert found in latest if latest else np.isnan(found)


def test_a_later_row_changes_no_earlier_example(tmp_path: Path) -> None:
    orders, grades = tables()
    before, _, _ = seen(problem(tmp_path, orders, grades))
    now = orders.placed[200]
    later = grades.assign(grade=grades.grade.where(grades.changed <= now, -1.0))
    after, _, _ = seen(
        problem(tmp_path, orders, pd.concat([later, later.tail(1).assign(changed=now + pd.Timedelta("1h"))]))
    )
    pd.testing.assert_frame_equal(before[:201], after[:201])
    assert not before[201:].equals(after[201:])


def test_the_leakage_suite_accepts_it(tmp_path: Path) -> None:
    asked = problem(tmp_path, *tables())
    _, examples, raw = seen(asked)
    found = future(asked, raw, CONTRACTS, examples, Leakage.model_construct(future=0.0, instants=5))
    assert set(found.column) >= {"grades_grade", "grades_town"} and (found.figure == 0).all(), found


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no such key": ({"on": "user"}, "no column 'user'"),
    "no such time": ({"as_of": "when"}, "no column 'when'"),
    "no such column": ({"columns": ["grade", "rank"]}, "no column 'rank'"),
    "no time, and keys twice": ({"as_of": None}, "whose key is not theirs alone"),
    "a setting there is not": ({"asof": "changed"}, "there is no such setting (did you mean as_of?)"),
    "the name of the own table": ({"name": "rows"}, "own table"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_declaration_is_told_in_one_line(tmp_path: Path, fault: str) -> None:
    settings, said = WRONG[fault]
    with pytest.raises(FieldbookError) as told:
        seen(problem(tmp_path, *tables(), **settings))
    assert said in str(told.value), told.value


def test_names_that_clash_are_told(tmp_path: Path) -> None:
    orders, grades = tables()
    with pytest.raises(FieldbookError, match="both tables have a column 'placed'"):
        asked = problem(tmp_path, orders, grades.rename(columns={"town": "placed"}), prefix="")
        asked.observe(
            asked.examples({"rows": orders}, "back"),
            {"rows": orders, "grades": grades.rename(columns={"town": "placed"})},
        )


def test_two_tables_go_through_the_pipeline(tmp_path: Path) -> None:
    """From two files to features, with the leakage suite behind them; a source elsewhere is refused."""
    project: Project = copy_tree(tmp_path / "project", ["logistic"])
    orders = shop().assign(customer=lambda table: "c" + (table.order % 40).astype(str))
    orders.to_csv(project.path / "data/sources/shop.csv", index=False)
    rng = np.random.default_rng(5)
    changed = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(-500, 2400, 400), unit="h")
    grades = pd.DataFrame(
        {"customer": [f"c{n % 40}" for n in range(400)], "changed": changed.strftime("%d/%m/%Y %H:%M")}
    )
    grades.assign(grade=rng.integers(1, 6, 400)).to_csv(project.path / "data/sources/grades.csv", index=False, sep=";")
    project.do(
        "python3", "src", "adopt", "data/sources/shop.csv", "--target=sent_back", "--as-of=placed", "--key=order"
    )
    project.edit("conf/config.yaml", r"- problem: \w+", "- problem: shop")
    how = {"delimiter": ";", "times": {"changed": "%d/%m/%Y %H:%M"}}
    join = {"source": "data/sources/grades.csv", "read": how, "on": "customer", "as_of": "changed", "prefix": ""}
    columns = {"customer": {"type": "str"}, "changed": {"type": "datetime"}, "grade": {"type": "int"}}
    names = [*project.read("conf/problem/shop.yaml")["features"]["groups"]["columns"], "grade"]
    settle(project, {
        "problem.join": [join],
        "ingest.tables.grades": {"key": [], "known_at": "changed", "columns": columns},
        "features.request.grade": {"type": "float", "nullable": True},
        "features.groups.columns": names,
        "leakage.replicates": 20,
    })  # fmt: skip
    project.do("dvc", "repro", "leakage")
    table = pd.read_parquet(project.path / "data/features/features.parquet")
    assert table.grade.notna().mean() > 0.5 and "grade" in project.read("data/settings/features.json")["request"]
    project.set("problem.source", "shop.csv")
    (project.path / "shop.csv").write_bytes((project.path / "data/sources/shop.csv").read_bytes())
    done = project.run("dvc", "repro", "ingest")
    assert done.returncode != 0 and "lies outside data/sources" in errors(done)[0], done.stdout
