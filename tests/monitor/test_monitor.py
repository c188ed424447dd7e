"""`fieldbook monitor` on logs as they lie: of the example's November, and with everything that can be wrong in one."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from logs import Line, celsius, lines, write
from server import BEARER, Server

from fieldbook import FieldbookError
from fieldbook.core.page import Outside
from fieldbook.monitor.monitor import main
from fieldbook.observe.log import compact

BEGINS, TURNS, NOW = "2013-11-04", "2013-11-16", "2013-11-17T06:00"


@pytest.fixture(scope="session")
def sent(project: Path) -> list[Line]:
    """Return a fortnight, of which the last two days have the temperature in degrees Celsius."""
    return lines(project, BEGINS, "2013-11-18", partial(celsius, since=TURNS))


@pytest.fixture(scope="session")
def few(sent: list[Line]) -> list[Line]:
    """Return the first 400 rows."""
    return sent[:400]


@pytest.fixture(scope="session")
def log(sent: list[Line], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a log of that fortnight."""
    return write(tmp_path_factory.mktemp("log"), sent)


@pytest.fixture(scope="session")
def report(log: Path) -> dict[str, Any]:
    """Return what the monitor found in it."""
    return main(log, None, None, NOW)


def told(folder: Path) -> list[dict[str, Any]]:
    """Return the alerts that were told."""
    return [
        json.loads(line) for path in sorted(folder.glob("alerts-*.jsonl")) for line in path.read_text().splitlines()
    ]


def test_a_changed_unit_is_an_alert_that_names_it(report: dict[str, Any], log: Path) -> None:
    opened = [alert for alert in report["alerts"] if alert["rule"] == "unit"]
    assert [alert["streams"] for alert in opened] == [["field:temperature"]], report["alerts"]
    assert "Fahrenheit to Celsius" in opened[0]["text"] and opened[0]["ends"] > TURNS
    assert report["verdict"]["state"] == "alarm"
    before = [one for one in told(log / "monitor") if one["rule"] == "unit" and one["ends"] < TURNS]
    assert before == [], "nothing had changed before"


def test_what_it_costs_is_told_once_outcomes_are_known(report: dict[str, Any]) -> None:
    days = [one for one in report["windows"] if one["window"] == "day"]
    assert all(one["lost"]["whole"]["loss"]["low"] > 0 for one in days)
    parts = days[0]["parts"]
    whole = parts["traffic"]["value"] + parts["shares"]["value"] + parts["world"]["value"]
    assert whole == pytest.approx(parts["change"]["value"], abs=1)


def test_the_page_is_small_and_loads_nothing(report: dict[str, Any], log: Path) -> None:
    page = (log / "monitor/report.html").read_text()
    assert len(page) < 300 * 1024 and Outside(page).found == []
    anchors = [alert["runbook"] for alert in report["alerts"]]
    assert all(f'id="{anchor}"' in page for anchor in anchors)
    figures = (log / "monitor/metrics.prom").read_text()
    assert 'fieldbook_monitor_alerts{rule="unit"} 1.0' in figures


def test_a_second_look_finds_the_same_and_tells_nothing_twice(report: dict[str, Any], log: Path) -> None:
    before = {path.name: path.read_bytes() for path in (log / "monitor").iterdir()}
    main(log, None, None, NOW)
    after = {path.name: path.read_bytes() for path in (log / "monitor").iterdir()}
    assert after == before


@pytest.mark.slow
def test_a_compacted_log_says_the_same(few: list[Line], tmp_path: Path) -> None:
    plain = main(write(tmp_path / "plain", few), None, None, NOW)
    made = compact(write(tmp_path / "made", few))
    assert len(made) == 2 and not list((tmp_path / "made").glob("*.jsonl"))
    assert main(tmp_path / "made", None, None, NOW)["windows"] == plain["windows"]


def two_models(rows: list[Line]) -> list[Line]:
    return [{**row, "lineage": "0123456789abcdef"} if place % 4 == 0 else row for place, row in enumerate(rows)]


def test_rows_of_another_model_are_left_out_and_told(few: list[Line], tmp_path: Path) -> None:
    found = main(write(tmp_path, two_models(few)), None, None, NOW)
    assert found["log"]["others"] == {"0123456789abcdef": 100} and found["log"]["rows"] == 300
    assert "0123456789abcdef" in (tmp_path / "monitor/report.html").read_text()


def test_torn_lines_are_counted(few: list[Line], tmp_path: Path) -> None:
    path = next(write(tmp_path, few).glob("predictions-*"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + b"\n7\nnot JSON\n" + whole[len(whole) // 2 :][:-40])
    found = main(tmp_path, None, None, NOW)
    assert found["log"]["torn"] == 5, "two halves of a line, two that are none, and the last"
    assert found["log"]["rows"] == 398


def test_rows_of_the_future_are_left_out(few: list[Line], tmp_path: Path) -> None:
    ahead = [{**row, "time": "2031-01-01T00:00:00.000+00:00"} for row in few[:50]]
    found = main(write(tmp_path, [*few[50:], *ahead]), None, None, NOW)
    assert (found["log"]["future"], found["log"]["rows"]) == (50, 350)
    with pytest.raises(FieldbookError, match="later"):
        main(tmp_path, None, None, "2012-01-01T00:00")


def test_without_outcomes_it_says_what_it_cannot_see(few: list[Line], tmp_path: Path) -> None:
    found = main(write(tmp_path, few, outcomes=False), None, None, NOW)
    assert found["log"]["outcomes"] == 0 and all(one["lost"] is None for one in found["windows"])
    assert all(one["expects"]["loss"]["low"] > 0 for one in found["windows"])
    assert "no outcomes yet" in (tmp_path / "monitor/report.html").read_text()


def test_ten_rows_are_too_few(few: list[Line], tmp_path: Path) -> None:
    found = main(write(tmp_path, few[:10]), None, None, NOW)
    assert found["verdict"]["state"] == "unknown" and found["log"]["rows"] == 10


def test_a_field_that_the_contract_does_not_know_is_named(few: list[Line], tmp_path: Path) -> None:
    more = [{**row, "inputs": {**row["inputs"], "moon": "full"}} for row in few]
    assert main(write(tmp_path, more), None, None, NOW)["log"]["unknown"] == ["moon"]


def test_a_number_that_is_text_counts_as_missing(few: list[Line], tmp_path: Path) -> None:
    wrong = [{**row, "inputs": {**row["inputs"], "temperature": "warm"}} for row in few]
    found = main(write(tmp_path, wrong), None, None, NOW)
    kinds = {(cause["kind"], *cause["streams"]) for one in found["windows"] for cause in one["causes"]}
    assert ("missing field", "field:temperature") in kinds, kinds


SLOW = pytest.mark.slow


@pytest.mark.parametrize("wrong", ["empty", *(pytest.param(name, marks=SLOW) for name in ("nowhere", "other", "file"))])
def test_what_is_no_log_is_told_in_one_line(few: list[Line], tmp_path: Path, wrong: str) -> None:
    logs, words = tmp_path / wrong, {"nowhere": "is not there", "empty": "no prediction log", "file": "cannot be read"}
    if wrong == "empty":
        logs.mkdir()
    if wrong == "other":
        write(logs, [{**row, "lineage": "0123456789abcdef"} for row in few])
    if wrong == "file":
        logs.write_bytes(b"\x00\xff\xfe")
    done = subprocess.run([sys.executable, "-m", "fieldbook", "monitor", logs], capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert words.get(wrong, "0123456789abcdef") in done.stderr
    assert not (logs / "monitor").exists()


@pytest.mark.parametrize("kind", ["csv", pytest.param("parquet", marks=SLOW)])
def test_a_file_of_requests_is_looked_at_before_it_is_used(sent: list[Line], tmp_path: Path, kind: str) -> None:
    table, path = pd.DataFrame([row["inputs"] for row in sent[:3000]]), tmp_path / f"batch.{kind}"
    table = table.assign(temperature=(table["temperature"] - 32) / 1.8).drop(columns="seats").assign(moon="full")
    table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path)
    found = main(path, None, None, NOW)
    causes = {(cause["kind"], *cause["streams"]) for one in found["windows"] for cause in one["causes"]}
    assert {("unit", "field:temperature"), ("missing field", "field:seats")} <= causes, causes
    assert found["log"]["unknown"] == ["moon"] and (tmp_path / f"batch.{kind}.monitor/report.html").exists()


def test_the_log_of_a_running_server(server: Server, manifest: dict[str, Any], tmp_path: Path) -> None:
    sample = manifest["samples"][0]["request"]
    answers = server.client.post("/predict", json=[sample] * 150).json()
    outcome = [{"request_id": one["request_id"], "outcome": one["decision"]} for one in answers]
    assert server.client.post("/feedback", json=outcome, headers=BEARER).status_code == 202
    found = main(server.logs, None, tmp_path / "found", None)
    assert found["log"]["rows"] >= 150 and found["log"]["outcomes"] >= 150 and found["log"]["torn"] == 0


@pytest.mark.slow
def test_killed_at_any_moment_nothing_is_lost_or_doubled(
    report: dict[str, Any], sent: list[Line], tmp_path: Path
) -> None:
    logs = write(tmp_path, sent)
    command = [sys.executable, "-m", "fieldbook", "monitor", logs, "--now", NOW]
    began = time.monotonic()
    assert subprocess.run(command, capture_output=True).returncode == 0
    whole, wanted = time.monotonic() - began, [(one["id"], one["event"]) for one in told(logs / "monitor")]
    for path in (logs / "monitor").iterdir():
        path.unlink()
    moments = random.Random(1)
    for _ in range(8):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(moments.uniform(0.5, 1.0) * whole)
        process.kill()
        process.wait()
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert sorted((one["id"], one["event"]) for one in told(logs / "monitor")) == sorted(wanted)
    assert json.loads((logs / "monitor/report.json").read_text())["windows"] == report["windows"]
