"""`make bench` for real, in short: figures are there and answers agree. How fast anything is, no test asks."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fieldbook import FieldbookError
from fieldbook.measure.bench import bench
from fieldbook.measure.questions import BODIES, CALLERS, Questions, read_questions
from fieldbook.measure.rivals import COMPETITORS
from fieldbook.measure.tables import grids, remarks, to_html

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def asked(project: Path) -> Questions:
    """Return what every server is asked."""
    return read_questions(project)


@pytest.fixture(autouse=True)
def tidy(project: Path) -> Iterator[None]:
    """No process and no file of a bench stays behind."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    after = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert [child for child in after if "resource_tracker" not in " ".join(child.cmdline())] == []
    assert not list((project / "tmp").glob("bench-*"))


def test_figures_of_bento_fastapi_and_session(asked: Questions) -> None:
    """Each server is timed for each number of rows and callers, and says what the graph says (or `bench` fails)."""
    told: list[str] = []
    found = bench(asked, ["bento", "fastapi", "session"], seconds=0.3, rounds=1, say=told.append)
    assert told[0] == "round 1 of 1: starting bento" and found["base"] == "bento"
    assert list(found["servers"]) == ["bento", "fastapi", "session"]
    for name, server in found["servers"].items():
        kinds = [(cell["rows"], cell["callers"]) for cell in server["cells"]]
        assert kinds == [(rows, many) for rows in BODIES for many in (CALLERS[:1] if name == "session" else CALLERS)]
        assert server["start_s"]["value"] > 0 and server["memory_mib"]["value"] > 10
        for cell in server["cells"]:
            assert 0 < cell["latency_p50_ms"]["value"] <= cell["latency_p99_ms"]["value"]
            assert cell["requests"]["value"] >= cell["callers"] and cell["cpu_ms"]["value"] >= 0
            assert cell["rows_per_s"]["value"] == pytest.approx(
                cell["rows"] * cell["requests_per_s"]["value"], rel=1e-3
            )
            assert name != "bento" or cell["speed"]["value"] == 1
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert remarks(found["servers"]) == []
    assert len(grids(found["servers"], "bento")) == 5 and "fastapi" in to_html(found)


def test_the_requests_are_those_of_the_champion(asked: Questions) -> None:
    """There are as many as the bodies take, all different, and the graph's answers to them are not all the same."""
    assert len(asked.records) == len(asked.features) == len(asked.expected) == max(r * n for r, n in BODIES.items())
    assert len({json.dumps(record) for record in asked.records}) == len(asked.records)
    assert len({tuple(row) for row in asked.expected.round(4)}) > 10
    assert all(path.exists() for path in asked.graphs)


def test_a_server_that_says_something_else_is_not_timed(asked: Questions) -> None:
    """Answers that are off by more than rounding stop the bench, and the server with it."""
    off = dataclasses.replace(asked, expected=asked.expected + 1e-3)
    with pytest.raises(FieldbookError, match="fastapi does not say what the champion's graph says"):
        bench(off, ["fastapi"], seconds=0.1, rounds=1, say=lambda text: None)


def test_an_unknown_server_is_named(project: Path) -> None:
    """A slip in `--only` is told in one line, with what there is."""
    command = [sys.executable, "-m", "fieldbook", "bench", "--only", "fastapy"]
    ran = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert ran.returncode == 1 and ran.stderr.startswith("fieldbook: bench: there is no 'fastapy'; there are bento")
    assert all(name in ran.stderr for name in COMPETITORS) and len(ran.stderr.splitlines()) == 1
