"""The published error rates are those of the study, and it gives them again."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldbook.monitor.incident import incidents
from fieldbook.monitor.study import NOTICE, SETTINGS, incident, line, season, table

RATES = Path(__file__).with_name("error_rates.json")


@pytest.fixture(scope="module")
def rates() -> dict[str, Any]:
    """Return the published error rates."""
    return json.loads(RATES.read_text())


def test_the_table_in_the_notebook_is_the_studys(project: Path, rates: dict[str, Any]) -> None:
    """Who reads the notebook reads what `fieldbook study` has written."""
    cells = json.loads((project / "notebooks/12_monitor/90_study.ipynb").read_text())["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert table(rates) in prose


def test_four_hundred_incidents_are_counted(rates: dict[str, Any]) -> None:
    """The sums are of the lines: so many planted, found and named."""
    lines = rates["incidents"]
    found = [one for one in lines if not one.endswith("not found")]
    named = [one for one in lines if one.endswith(", named")]
    assert len(lines) == rates["in all"]["planted"] == 400
    assert len(found) == round(400 * rates["in all"]["found"]["value"])
    assert len(named) == round(400 * rates["in all"]["named"]["value"])


def test_what_is_said_of_the_rates_holds(rates: dict[str, Any]) -> None:
    """Named of those found, and calls for nothing, are as good as the notebook says; or it must say otherwise."""
    assert rates["in all"]["named of found"]["value"] > 0.8
    hourly, daily = rates["quiet"].values()
    assert hourly["a month"]["low"] < 1 < daily["a month"]["low"], "which the notebook's last paragraph says"


@pytest.mark.slow
def test_a_part_of_the_study_gives_the_same(project: Path, rates: dict[str, Any]) -> None:
    """Every fortieth incident, again: the same seeds, the same words."""
    if rates["model"] != json.loads((project / "data/champion/manifest.json").read_text())["version"]:
        pytest.skip("the study is of another model: run `fieldbook study`")
    of = season(project / "data", NOTICE, SETTINGS)
    for number, (fault, begins, seed) in enumerate(incidents(of)):
        if number % 40 == 0:
            one, _ = incident(project / "data", fault, np.datetime64(begins), seed)
            assert line(fault, begins, seed, one) == rates["incidents"][number]
    assert re.match(r"1: ", rates["incidents"][0])
