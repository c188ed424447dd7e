"""The dashboard in a real browser: what it says, what it refuses to run, and what stays when the server is gone."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from browser import needs_axe, needs_browser, opened, serious
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fieldbook.observe.dashboard import HEADERS, page, summary
from fieldbook.observe.history import History
from fieldbook.observe.training import Training
from fieldbook.package.bins import Bins
from fieldbook.package.reference import Stream

pytestmark = [pytest.mark.slow, needs_browser]
EVIL = "</script><img src=x onerror=\"document.title='broken in'\"><b>"


def figures(label: str = EVIL, before: Training | None = None) -> bytes:
    """Return the summary of ten minutes in which every label is hostile, or another one; and training, if given."""
    registry, clock = CollectorRegistry(), iter(range(0, 10_000, 15))
    told = lambda kind, name, labels=(), **more: kind("fieldbook_" + name, ".", labels, registry=registry, **more)
    seconds, rows = told(Histogram, "request_seconds", ["outcome"]), told(Counter, "rows")
    names = {"predictions": "decision", "missing_values": "field", "unseen_values": "feature"}
    names |= {"refused_requests": "field", "requests": "status", "fallbacks": "reason"}
    counters = [told(Counter, name, [label]) for name, label in names.items()]
    scores, info = told(Histogram, "probability", ["of"]), told(Gauge, "model_info", ["version", "lineage", "model"])
    info.labels(label, label, label).set(1)
    history = History(registry.collect, clock=lambda: float(next(clock)))
    for _ in range(40):
        history.take()
        seconds.labels("answered").observe(0.001)
        rows.inc()
        scores.labels(label).observe(0.3)
        [counter.labels(label).inc() for counter in counters]
    return json.dumps(summary(history, before), allow_nan=False).encode()


def training_of(label: str) -> Training:
    """Return what training was like: half of each, with all values there."""
    bins = Bins(edges=[0.0, 0.5, 1.0])
    stream = Stream(kind="score", bins=bins, counts=[0, 0, 10, 10, 0], mean=0.5)
    return Training({label: 0.5, "never": 0.5}, {label: stream}, {label: stream}, None)


@contextmanager
def served(html: str, answers: Iterator[bytes | None]) -> Iterator[str]:
    """Serve the page, and for its figures one answer after the other; None is a failure. Yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith("/dashboard"):
                return self.answer(200, html.encode(), "text/html; charset=utf-8", HEADERS)
            body = next(answers)
            self.answer(500 if body is None else 200, body or b"", "application/json", {})

        def answer(self, status: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "content-type": kind, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/under/a/path/dashboard"
    finally:
        server.shutdown()
        server.server_close()


def test_hostile_names_are_shown_as_text(tmp_path: Path) -> None:
    """The page draws everything, under its own policy, and makes no element of what data says."""
    body = figures(EVIL, training_of(EVIL))
    with served(page(EVIL), iter(lambda: body, None)) as address:
        document, console = opened(address, tmp_path, 3)
    assert console == "", "the policy must let the page's own script and style through, and nothing may fail"
    drawn = re.sub(r"(?s)<script>.*?</script>", "", document)
    assert "<img" not in drawn and "<title>broken in" not in drawn and drawn.count("&lt;img src=x") >= 8
    assert drawn.count('role="img"') == 4 and drawn.count("aria-label=") == 4, "every chart says what it shows"
    assert "39 predictions" in drawn and "NaN" not in drawn and "undefined" not in drawn
    assert "mean score of &lt;" not in drawn.replace(f"mean score of {escape(EVIL, quote=False)}", "")
    assert "training: mean 0.5" in drawn and "of the rows; in training, in 0 %." in drawn
    assert "decided: never" in drawn and drawn.count("\u25b2 missing: ") == 1


def test_without_a_reference_nothing_is_said_of_training(tmp_path: Path) -> None:
    """An older champion has none: the page is as it was."""
    body = figures("late")
    with served(page("title"), iter(lambda: body, None)) as address:
        document, console = opened(address, tmp_path, 3)
    assert console == "" and re.search(r'<figure hidden=""><h2>Now against training', document)
    drawn = re.sub(r"(?s)<script>.*?</script>", "", document)
    assert "training: mean" not in drawn and drawn.count('role="img"') == 4


def test_injected_markup_does_not_run(tmp_path: Path) -> None:
    """Should something get into the page after all, the policy keeps it from running."""
    body, injected = figures(), "<script>document.title = 'broken in'</script>"
    with served(page("title").replace("<header>", f"{injected}<header>"), iter(lambda: body, None)) as address:
        document, console = opened(address, tmp_path, 3)
    assert "<title>title" in document and "Content Security Policy" in console


def test_the_last_figures_stay_when_the_server_is_gone(tmp_path: Path) -> None:
    """After one good answer the server fails: the charts stay, with a note that says from when they are."""

    def answers() -> Iterator[bytes | None]:
        yield figures()
        while True:
            yield None

    with served(page("title"), answers()) as address:
        document, _ = opened(address, tmp_path, 20)
    (note,) = re.findall(r'<p id="stale"[^>]*>([^<]*)</p>', document)
    assert "cannot be fetched (answer 500)" in note and "What you see is from" in note
    assert document.count('role="img"') == 4 and "39 predictions" in document


@needs_axe
@pytest.mark.parametrize("dark", [False, True])
def test_the_dashboard_can_be_read_by_everybody(tmp_path: Path, dark: bool) -> None:
    """axe-core finds nothing serious on the page, drawn with figures, in either look."""
    body = json.dumps(figures("late", training_of("late")).decode())
    told = f"<script>window.fetch = async () => new Response({body});</script>"
    drawn = page("Trains").replace("<script>", f"{told}<script>", 1)
    assert serious(drawn, tmp_path, dark) == []
