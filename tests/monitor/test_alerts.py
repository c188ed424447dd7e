"""Alerts are told once each, whatever happens to who tells them, and delivered to whoever listens."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from pydantic import TypeAdapter

from fieldbook.monitor.alert import Look, alerts, still_open, watch
from fieldbook.monitor.cause import Cause
from fieldbook.monitor.rule import KINDS, Rule, Rules, check_rules
from fieldbook.monitor.symptom import Figure, Symptom
from fieldbook.monitor.webhook import deliver, signed
from fieldbook.observe import log
from fieldbook.scope.settings import compose

ROOT = Path(__file__).resolve().parents[2]
RULES: Rules = {"unit": Rule(of=["unit"], windows=1, runbook="another-unit", false_alarms=0.1)}
MONTH = {"day": 30.0, "week": 4.3}


def cause(stream: str, window: str) -> Cause:
    """Return a cause that is surely told."""
    common = {
        "window": window,
        "begins": "",
        "ends": "",
        "surprise": 0.0,
        "words": "It has changed. It is twice as much.",
    }
    effect = Figure(value=2, low=1.9, high=2.1)
    symptom = Symptom(layer="quality", kind="unit", stream=stream, rows=9, unit="times", effect=effect, **common)
    return Cause(kind="unit", streams=[stream], symptoms=[symptom], cost=None, **common)


def looks(days: int = 40) -> list[Look]:
    """Return windows in which some of ten fields are wrong, on and off."""
    drawn = random.Random(7)
    return [
        Look(
            window=window,
            begins=f"2013-{1 + day // 28:02}-{1 + day % 28:02}T00:00",
            ends=f"2013-{1 + day // 28:02}-{1 + day % 28:02}T23:59",
            causes=[cause(f"field:{i}", window) for i in range(10) if drawn.random() < 0.3],
        )
        for window in MONTH
        for day in range(days)
    ]


def told(folder: Path) -> Counter[str]:
    """Return how often each alert was told."""
    return Counter(alert.key for alert in alerts(folder))


def killed(folder: Path, seen: list[Look], writes: int, part: float) -> int:
    """Run the monitor in a process that is killed in the middle of one of its writes; return its exit code."""

    def run() -> None:
        real, count = os.write, 0

        def write(file: int, data: bytes) -> int:
            nonlocal count
            count += 1
            if count > writes:
                real(file, data[: int(len(data) * part)])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(file, data)

        log.os.write = write
        watch(folder, seen, RULES, MONTH, 1, "USD")

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.slow
def test_killed_at_any_moment_each_alert_is_told_once(tmp_path: Path) -> None:
    """A run that nobody kills, and runs over more and more windows that are killed again and again, tell the same."""
    seen = looks()
    watch(tmp_path / "calm", seen, RULES, MONTH, 1, "USD")
    calm = told(tmp_path / "calm")
    assert len(calm) > 150 and set(calm.values()) == {1}
    drawn, codes, sizes = random.Random(11), [], []
    for days in range(1, 41):
        some = [look for window in MONTH for look in [one for one in seen if one.window == window][:days]]
        for _ in range(2):
            codes.append(killed(tmp_path / "wild", some, drawn.randrange(6), drawn.random()))
            sizes.append(sum(told(tmp_path / "wild").values()))
    watch(tmp_path / "wild", seen, RULES, MONTH, 1, "USD")
    assert codes.count(-signal.SIGKILL) > 40, "hardly any was killed, so this shows nothing"
    assert told(tmp_path / "wild") == calm
    assert sizes == sorted(sizes), "something that was told has gone"
    assert {alert.id for alert in still_open(alerts(tmp_path / "wild"))} == {
        alert.id for alert in still_open(alerts(tmp_path / "calm"))
    }


def test_compacted_logs_are_remembered(tmp_path: Path) -> None:
    """Whoever makes Parquet of the log of alerts hears nothing twice."""
    watch(tmp_path, looks(10), RULES, MONTH, 1, "USD")
    before = told(tmp_path)
    log.compact(tmp_path)
    assert not list(tmp_path.glob("alerts-*.jsonl")) and told(tmp_path) == before
    assert not watch(tmp_path, looks(10), RULES, MONTH, 1, "USD")


class Receiver(BaseHTTPRequestHandler):
    """Does with each post what `plan` says next, and then what it said last."""

    plan: ClassVar[list[Any]] = []
    came: ClassVar[list[tuple[str, str, bytes]]] = []

    def do_POST(self) -> None:
        """Take a post: answer with a status, hang, hang up, or drip bytes without end."""
        body = self.rfile.read(int(self.headers["content-length"]))
        self.came.append((self.headers["idempotency-key"], self.headers["x-fieldbook-signature"], body))
        what = self.plan.pop(0) if len(self.plan) > 1 else self.plan[0]
        if what == "hang":
            time.sleep(30)
        elif what == "drip":
            for _ in range(300):
                self.wfile.write(b"H")
                self.wfile.flush()
                time.sleep(0.1)
        elif what == "hang up":
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.send_response(what)
            self.end_headers()

    def log_message(self, *words: object) -> None:
        """Be quiet."""


@contextmanager
def receiver(*plan: Any) -> Iterator[str]:
    """Give the address of a receiver with a plan."""
    Receiver.plan, Receiver.came = list(plan), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/alerts"
    server.shutdown()
    server.server_close()


def outbox(folder: Path) -> set[str]:
    """Fill an outbox; return the keys of what is to be delivered: incidents that were over at once call nobody."""
    watch(folder, looks(6), RULES, MONTH, 1, "USD")
    return {alert.key for alert in still_open(alerts(folder))}


def test_what_fails_is_tried_again_and_taken_once(tmp_path: Path) -> None:
    """Answers of 500, a connection that ends, then 200: all alerts arrive, signed; the next run has none."""
    due = outbox(tmp_path)
    with receiver(500, "hang up", 429, 200) as url:
        assert deliver(tmp_path, url, b"secret", seconds=20) == (len(due), 0, "")
        assert deliver(tmp_path, url, b"secret", seconds=20) == (0, 0, "")
    assert len(Receiver.came) == len(due) + 3
    assert {key for key, _, _ in Receiver.came} == due
    for key, signature, body in Receiver.came:
        assert signed(signature, body, b"secret", time.time()) and not signed(signature, body, b"other", time.time())
        alert = json.loads(body)
        assert key == f"{alert['id']}-{alert['event']}" and alert["text"]


@pytest.mark.parametrize("what", [*(pytest.param(one, marks=pytest.mark.slow) for one in ("hang", "drip")), 500])
def test_nobody_waits_for_a_receiver(tmp_path: Path, what: Any) -> None:
    """It returns in its time, says what is wrong, and keeps what is left for the next run."""
    due = outbox(tmp_path)
    with receiver(what) as url:
        sent, left, problem = deliver(tmp_path, url, seconds=1)
    assert (sent, left) == (0, len(due)) and problem
    with receiver(200) as url:
        assert deliver(tmp_path, url, seconds=20).sent == len(due)


def test_what_is_refused_for_good_waits(tmp_path: Path) -> None:
    """A 403 is not tried again in this run: nothing but another key or address helps."""
    due = outbox(tmp_path)
    with receiver(403) as url:
        assert deliver(tmp_path, url, seconds=20) == (0, len(due), "the receiver answered 403")
    assert len(Receiver.came) == 1


def test_a_killed_delivery_loses_nothing(tmp_path: Path) -> None:
    """What was posted and not noted is posted again, with the same key; all arrive."""
    due = outbox(tmp_path)

    def run(url: str, writes: int) -> None:
        real, left = os.write, [writes]

        def write(file: int, data: bytes) -> int:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(file, data)

        log.os.write = write
        deliver(tmp_path, url, seconds=20)

    with receiver(200) as url:
        for writes in (0, 1, 2, 0):
            process = multiprocessing.get_context("fork").Process(target=run, args=(url, writes))
            process.start()
            process.join(60)
            assert process.exitcode == -signal.SIGKILL
        assert deliver(tmp_path, url, seconds=20) == (len(due) - 3, 0, "")
    came = Counter(key for key, _, _ in Receiver.came)
    assert set(came) == due and came.total() == len(due) + 4


SETTINGS = yaml.safe_load(compose(ROOT / "conf"))


def test_rules_of_this_project_lead_somewhere() -> None:
    """To stakeholders and headings of the runbook; every kind has a rule; one false alarm a month in all."""
    rules = TypeAdapter(Rules).validate_python(SETTINGS["rules"])
    check_rules(rules, [one["who"] for one in SETTINGS["scope"]["stakeholders"]], ROOT / "conf/deploy/runbook.md")
    assert {kind for rule in rules.values() for kind in rule.of} == {kind for kinds in KINDS.values() for kind in kinds}
    assert sum(rule.false_alarms for rule in rules.values()) <= 1 + 1e-9


def test_the_runbook_says_of_each_alert_the_same_five_things() -> None:
    """What it means, whether it is real, how bad it is, what to do first, and whom to call."""
    book = (ROOT / "conf/deploy/runbook.md").read_text()
    for part in book.split("\n## ")[1:]:
        for word in ("**It means:**", "**Is it real?**", "**How bad?**", "**First:**", "**Call:**"):
            assert part.count(word) == 1, f"{part.splitlines()[0]} lacks {word}"
    rules = (ROOT / "conf/deploy/prometheus/rules.yml").read_text()
    linked = set(re.findall(r"runbook\.md#([a-z0-9-]+)", rules))
    headings = {title.split("\n")[0].lower().replace(" ", "-") for title in book.split("\n## ")[1:]}
    assert linked and linked <= headings
