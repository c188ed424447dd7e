"""The leaderboard in a real browser: what its sliders, its address and its script do."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import browser
import nbformat
import pytest

from fieldbook.core.page import Outside
from fieldbook.core.page import to_page as notebook_to_page
from fieldbook.select.leaderboard import fragment, rows, score, to_page

pytestmark = [pytest.mark.slow, browser.needs_browser]
EVIL = "</script><img src=x onerror=\"document.title='broken in'\">"
NAMES = ["quality", "cost & risk", "size", "gap"]
BOARD = {
    "champion": "trees",
    "challenger": "linear",
    "dimensions": [
        {"name": "quality", "figure": "auc", "better": "higher", "weight": 3},
        {"name": "cost & risk", "figure": "cost", "better": "lower", "weight": 2},
        {"name": "size", "figure": "size_kib", "better": "lower", "weight": 0},
        {"name": "gap", "figure": "fairness.gap", "better": "lower", "weight": 9},  # of no model: it must not count
    ],
    "models": [
        {"model": "trees", "state": "passed", "broken": [], "auc": 0.77, "cost": 47.0, "size_kib": 267.0},
        {"model": "linear", "state": "passed", "broken": [], "auc": 0.74, "cost": 50.0, "size_kib": 4.0},
        {"model": EVIL, "state": "failed", "broken": [EVIL], "auc": 0.6, "cost": 60.0, "size_kib": 1.0},
        {"model": "new", "state": "not enough data to say", "broken": ["more"], "auc": 0.75, "cost": 46.0},
    ],
}


class Table(HTMLParser):
    """The rows of the leaderboard as the browser left them: model, score, and whether it is hidden."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []
        self.inside = self.wanted = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.inside = self.inside or tag == "tbody"
        if self.inside and tag == "tr":
            self.rows.append({"model": "", "hidden": "hidden" in given})
        if self.inside and tag == "data":
            self.rows[-1]["score"] = float(given["value"] or "nan")
        self.wanted = self.inside and tag == "th"

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "tbody"
        self.wanted = False

    def handle_data(self, data: str) -> None:
        if self.wanted:
            self.rows[-1]["model"] += data


def opened(page: str, folder: Path, view: str = "") -> str:
    """Return the document as it is after the page's scripts have run, opened from a file and with no network."""
    (folder / "page.html").write_text(page)
    return browser.opened(f"{(folder / 'page.html').as_uri()}{view}", folder)[0]


def ranked(weights: list[float]) -> list[tuple[str, float]]:
    """Return what Python says the order is: by score, and in the order of the opening weights where it is equal."""
    scores = [(row["model"], score(row["shares"], weights)) for row in rows(BOARD)]
    return sorted(scores, key=lambda pair: -pair[1])


@pytest.mark.parametrize("weights", [(3, 2, 0), (0, 0, 10), (1, 10, 1), (10, 0, 0), (0, 0, 0)])
def test_the_address_sets_the_weights(tmp_path: Path, weights: tuple[int, ...]) -> None:
    """Browser and Python agree on every score and on the order; a dimension nobody knows does not count."""
    view = urlencode(dict(zip(NAMES, [*weights, 9])))
    found = Table(opened(to_page("Board", "", fragment(BOARD)), tmp_path, f"#{view}")).rows
    expected = ranked([*weights, 0])
    assert [row["model"] for row in found] == [name for name, _ in expected]
    assert [row["score"] for row in found] == pytest.approx([value for _, value in expected], abs=1e-6)
    assert not any(row["hidden"] for row in found)


def test_a_strange_address_is_taken_for_none(tmp_path: Path) -> None:
    """An anchor, or weights that are none, leave the opening weights; too large a weight is the largest."""
    page = to_page("Board", "", fragment(BOARD))
    for view, weights in (
        ("#The-stage", [3, 2, 0, 0]),
        ("#quality=much&size=", [3, 2, 0, 0]),
        ("#size=99", [3, 2, 10, 0]),
    ):
        found = Table(opened(page, tmp_path, view)).rows
        assert [row["model"] for row in found] == [name for name, _ in ranked(weights)], view


def test_models_that_may_not_serve_can_be_hidden(tmp_path: Path) -> None:
    page = opened(to_page("Board", "", fragment(BOARD)), tmp_path, "#hide=1&size=10&quality=0&cost+%26+risk=0")
    assert {row["model"] for row in Table(page).rows if row["hidden"]} == {EVIL, "new"}
    assert "First under these weights: linear, 0.99." in page, "what is hidden is not first"


def test_a_page_of_a_notebook_is_live_and_safe(tmp_path: Path) -> None:
    """Through nbconvert the scripts survive, a name that is markup stays text, and nothing is loaded."""
    cell = nbformat.v4.new_code_cell("HTML(fragment(board))", metadata={"tags": ["report"]})
    cell.outputs = [nbformat.v4.new_output("execute_result", data={"text/html": fragment(BOARD)})]
    page = notebook_to_page(nbformat.v4.new_notebook(cells=[cell]), "Select")
    assert Outside(page).found == []
    shown = opened(page, tmp_path, "#quality=0&cost+%26+risk=0&size=10")
    assert [row["model"] for row in Table(shown).rows] == [name for name, _ in ranked([0, 0, 10, 0])]
    assert "<title>Select</title>" in shown and EVIL in [row["model"] for row in Table(shown).rows]


def test_a_slider_sorts_at_once_and_is_kept_in_the_address(tmp_path: Path) -> None:
    """Move a slider and tick the box, as a reader does: order, address and buttons follow; the button goes back."""
    hand = """<script>
    const form = document.querySelector("#leaderboard form"), steps = [];
    const seen = () => [...document.querySelectorAll("#leaderboard tbody tr:not([hidden]) th")];
    const order = () => seen().map(th => th.firstChild.data);
    const note = () => steps.push([order(), location.hash]);
    note();
    for (const slider of form.querySelectorAll("input[type=range]")) {
      slider.value = slider.name === "size" ? 10 : 0;
      slider.dispatchEvent(new Event("input", {bubbles: true}));
    }
    note();
    form.elements.hide.click(); note();
    form.querySelector("button").click(); note();
    location.hash = "#size=10&quality=0&cost+%26+risk=0";
    addEventListener("hashchange", () => { note(); document.title = JSON.stringify(steps); });
    </script>"""
    page = to_page("Board", "", fragment(BOARD)).replace("</body>", f"{hand}</body>")
    title = re.search(r"<title>(.*?)</title>", opened(page, tmp_path), re.S)
    (start, none), (moved, kept), (fewer, ticked), (back, gone), (linked, _) = json.loads(html.unescape(title[1]))
    opening, small = ([name for name, _ in ranked(weights)] for weights in ([3, 2, 0, 0], [0, 0, 10, 0]))
    assert start == back == opening and none == gone == ""
    assert moved == linked == small and kept == "#quality=0&cost+%26+risk=0&size=10&gap=0"
    assert fewer == [name for name in small if name in ("trees", "linear")] and ticked == f"{kept}&hide=1"


@browser.needs_axe
@pytest.mark.parametrize("dark", [False, True])
def test_the_leaderboard_can_be_read_by_everybody(tmp_path: Path, dark: bool) -> None:
    """axe-core finds nothing serious, in either look."""
    assert browser.serious(to_page("Board", "All of them.", fragment(BOARD)), tmp_path, dark) == []
