"""The leakage gate on this project's own data: it passed, it stops what it should, and what it leaves then."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fieldbook import FieldbookError
from fieldbook.data.ingest import Ingest
from fieldbook.examine import finding, leakage, lookahead
from fieldbook.examine.finding import Leakage
from fieldbook.scope.problem import Problem, build_problem

Tables = dict[str, pd.DataFrame]


@pytest.fixture(scope="module")
def six_weeks(raw: Tables) -> Tables:
    """Return the raw tables with the flights of six weeks."""
    flights = raw["flights"]
    kept = flights[(flights["month"] == 2) | ((flights["month"] == 3) & (flights["day"] <= 14))].reset_index(drop=True)
    return {**raw, "flights": kept}


def moved(problem: Problem, tables: Tables, setting: Callable[[str, Any], Any]) -> set[str]:
    """Return the request fields that see the future."""
    examples = problem.examples(tables, setting("scope/framing", str))
    contracts, limits = setting("ingest", Ingest).tables, setting("leakage", Leakage)
    found = lookahead.future(problem, tables, contracts, examples, limits)
    return set(found.loc[found["above"], "column"])


def test_no_field_moves_without_the_future(
    problem: Problem, six_weeks: Tables, setting: Callable[[str, Any], Any]
) -> None:
    """The tables are cut off at several instants; everything asked before them is observed as before."""
    assert moved(problem, six_weeks, setting) == set()


def test_a_look_up_that_is_three_hours_late_is_found(six_weeks: Tables, setting: Callable[[str, Any], Any]) -> None:
    """The same problem, looking up at one hour after departure instead of two hours before."""
    late: Any = build_problem(setting("problem", dict[str, Any]))
    as_of = late._as_of
    late._as_of = lambda when: as_of(when) + pd.Timedelta("3h")
    looking_back = {"temperature", "origin_delay", "carrier_delay", "destination_delay", "aircraft_departure_delay"}
    assert looking_back | {"aircraft_arrival_delay", "route_late_rate", "flight_late_rate"} <= moved(
        late, six_weeks, setting
    )


def test_this_project_passed(project: Path) -> None:
    """All checks ran, and none is above its limit."""
    found = pd.read_json(project / "data/leakage/findings.json")
    assert set(found["check"]) >= {"alone", "together", "fitted", "duplicates", "collapse", "future"}
    assert not found["above"].any() and not found["why"].str.contains("not checked").any()
    assert json.loads((project / "data/leakage/passed.json").read_text()) == {"passed": True}


def test_a_leak_stops_the_stage_and_leaves_the_findings(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says what to do; findings are there, and what training waits for is not."""
    table = pd.read_parquet(project / "data/features/features.parquet")
    table = table[table["label"].notna()].sample(3000, random_state=0).sort_values("as_of", kind="stable")
    for name in ("features", "examples", "leakage"):
        (tmp_path / "data" / name).mkdir(parents=True)
    table.assign(seats=table["label"].astype("float32")).to_parquet(tmp_path / "data/features/features.parquet")
    table[["example_id", "as_of"]].to_parquet(tmp_path / "data/examples/examples.parquet")
    (tmp_path / "data/leakage/passed.json").write_text("of an earlier run")
    (tmp_path / "data/raw").symlink_to(project / "data/raw")
    shutil.copytree(project / "data/settings", tmp_path / "data/settings")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(leakage, "future", lambda *_: finding.findings([]))
    with pytest.raises(
        FieldbookError, match=r"^leakage: alone: seats: 1 .* is above [\d.]+: .*features\.groups"
    ) as error:
        leakage.main()
    assert "\n" not in str(error.value)
    found = pd.read_json(tmp_path / "data/leakage/findings.json")
    assert "seats" in set(found.loc[found["above"], "column"])
    assert not (tmp_path / "data/leakage/passed.json").exists()
