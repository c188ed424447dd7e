"""The running Bento, attacked: by what its own description allows and forbids, by broken bodies, heads and HTTP.

Whatever comes, it answers with a status it has described, tells nothing of the machine it runs on, writes no traceback,
answers everyone else meanwhile, and keeps a log that can be read.
"""

import contextlib
import json
import math
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import duckdb
import msgspec
import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.engine import events, from_schema
from server import BEARER, TOKEN, Server

from fieldbook.observe.log import read, view

pytestmark = pytest.mark.slow

# Cases that each test must have sent at least; the tests count them.
CASES = {"described": 3_000, "bodies": 5_000, "outcomes": 2_500, "heads": 4_000, "broken HTTP": 2_500}
assert sum(CASES.values()) >= 10_000
SECONDS = 10  # in which there must be an answer
ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# What an answer's head may consist of: a caller must not be able to add to it.
HEADERS = {b"date", b"content-type", b"content-length", b"x-request-id", b"x-content-type-options"}
HEADERS |= {
    b"accept-encoding",
    b"traceparent",
    b"connection",
    b"allow",
    b"retry-after",
    b"www-authenticate",
    b"content-security-policy",
}
HEADERS |= {b"cache-control", b"referrer-policy", b"accept-ranges", b"last-modified", b"etag", b"x-frame-options"}


def fuzz(cases: str) -> settings:
    """Return Hypothesis' settings for one of `CASES`: what it finds is found again by running it again."""
    return settings(
        max_examples=CASES[cases],
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],  # to shrink takes minutes; the request is told as it was sent
        suppress_health_check=list(HealthCheck),
    )


def often(usual: st.SearchStrategy, odd: st.SearchStrategy, times: int = 3) -> st.SearchStrategy:
    """Return a strategy that draws from `usual` so many times as often as from `odd`."""
    return st.sampled_from([usual] * times + [odd]).flatmap(lambda chosen: chosen)


class Told(NamedTuple):
    """An answer."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Wire:
    """A connection that sends anything, and is made again when it was closed."""

    def __init__(self, server: Server, project: Path) -> None:
        self.place = (server.client.base_url.host, server.client.base_url.port)
        self.secrets = [b"Traceback", b"/src/", b"site-packages", str(project).encode(), TOKEN.encode()]
        self.connection: socket.socket | None = None

    def open(self) -> socket.socket:
        """Return the connection."""
        if self.connection is None:
            self.connection = socket.create_connection(self.place, timeout=SECONDS)
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.connection

    def close(self) -> None:
        """Close it."""
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    def ask(self, request: bytes) -> Told:
        """Return the answer to a request that is whole; no answer in time is an error."""
        for again in (True, False):  # the server may have closed a connection that was idle
            with contextlib.suppress(ConnectionError):
                self.open().sendall(request)
            with contextlib.suppress(ConnectionError):
                if told := self._answer(request.split(b" ", 1)[0]):
                    return told
            self.close()
            assert again, ("no answer", request[:2000])
        raise AssertionError

    def all(self, sent: bytes, patience: float = 0.3) -> list[Told]:
        """Return all answers to what may be no request, on a connection of its own."""
        self.close()
        heard = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            self.open().sendall(sent)
        with contextlib.suppress(ConnectionError, TimeoutError):
            self.open().settimeout(patience)
            while part := self.open().recv(2**16):
                heard += part
        self.close()
        parts = re.split(rb"(?=HTTP/1\.[01] [0-9]{3} )", heard)
        assert not parts[0], ("no HTTP", sent, heard)
        return [self._checked(*part.partition(b"\r\n\r\n")[::2]) for part in parts[1:]]

    def _answer(self, method: bytes) -> Told | None:
        heard = b""
        while True:
            while b"\r\n\r\n" not in heard:
                if not (part := self.open().recv(2**16)):
                    return None
                heard += part
            head, _, body = heard.partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 100 "):
                break
            heard = body
        told = self._checked(head, b"")
        size = 0 if method == b"HEAD" else int(told.headers[b"content-length"])
        while len(body) < size and (part := self.open().recv(2**16)):
            body += part
        assert len(body) == size, ("more or less than it said", head, body[:500])
        if told.headers.get(b"connection") == b"close":
            self.close()
        return self._checked(head, body)

    def _checked(self, head: bytes, body: bytes) -> Told:
        lines = head.split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines[1:])
        assert headers.keys() <= HEADERS, head
        assert ID.fullmatch(headers.get(b"x-request-id", b"none")), head
        assert not any(secret in part for secret in self.secrets for part in (head, body)), (head, body)
        status = int(lines[0].split()[1])
        assert status < 500, (head, body)
        if status >= 400:
            assert len(body) < 20_000, "an error does not echo what was sent"
        return Told(status, headers, body)


@pytest.fixture(scope="module")
def wire(server: Server, project: Path) -> Iterator[Wire]:
    """A connection to the server."""
    wire = Wire(server, project)
    yield wire
    wire.close()


@pytest.fixture(scope="module")
def sample(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a request that is right."""
    return manifest["samples"][0]["request"]


def worker(server: Server) -> psutil.Process:
    """Return the process that answers."""
    (found,) = [one for one in psutil.Process(server.process.pid).children() if "worker" in " ".join(one.cmdline())]
    return found


def counted(server: Server, name: str) -> float:
    """Return a metric, summed over its labels."""
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


@pytest.fixture(autouse=True)
def unharmed(server: Server, manifest: dict[str, Any], wire: Wire) -> Iterator[None]:
    """After each test: the same process, ready, right, with nothing in its output and all it answered in its log."""
    before = worker(server).pid
    yield
    assert worker(server).pid == before, "it was started again"
    assert server.client.get("/readyz").status_code == 200
    right = manifest["samples"][0]
    answer = server.client.post("/predict", json=right["request"]).json()
    assert answer["probability"] == pytest.approx(right["answer"]["probability"], abs=1e-5)
    assert answer["fallback"] is None
    output = server.output.read_text()
    assert "Traceback" not in output and "a request failed" not in output and TOKEN not in output
    assert len(output) < 50_000, "what callers send must not fill the service's output"
    end = time.monotonic() + 5
    while counted(server, "fieldbook_in_flight") and time.monotonic() < end:
        time.sleep(0.1)
    assert counted(server, "fieldbook_in_flight") == 0
    for name, metric in {"predictions": "fieldbook_rows_total", "feedback": "fieldbook_feedback_total"}.items():
        lines = [line for path in server.logs.glob(f"{name}-*.jsonl") for line in path.read_bytes().splitlines()]
        rows = [msgspec.json.decode(line) for line in lines]
        assert len(rows) == counted(server, metric), "each row that was answered, and no other"


def test_its_log_can_be_read(server: Server, wire: Wire, sample: dict[str, Any]) -> None:
    """Control characters, separators and quotes in a text field: pandas and DuckDB read what was said, and no more."""
    for text in ("\x00", '"', "\\", "\n", "\r\n", "\u2028", "\x7f", "',", "{}", "💥", "e\u0301", "\ufeff", "\ufffe"):
        told = server.client.post("/predict", json={**sample, "carrier": text})
        assert told.status_code == 200 and told.json()["unseen"] == ["carrier"], text
        row = read(server.logs).set_index("request_id").loc[told.json()["request_id"]]
        assert row["inputs.carrier"] == text
    rows = duckdb.execute(f"SELECT count(*), count(DISTINCT request_id) FROM {view(server.logs)}").fetchall()[0]
    known = read(server.logs)  # callers name requests, some twice
    assert rows == (len(known), known["request_id"].nunique())


def test_it_does_as_it_is_described(server: Server, wire: Wire) -> None:
    """What Schemathesis makes of the description: allowed and forbidden requests, all operations and methods."""
    options = {
        "base-url": str(server.client.base_url),
        "seed": 1,
        "headers": BEARER,
        "request-timeout": SECONDS,
        "generation": {"mode": "all", "max-examples": 270, "database": "none", "no-shrink": True},
        "phases": {"stateful": {"enabled": False}},
    }
    config = schemathesis.Config.from_dict(options)
    described = schemathesis.openapi.from_dict(server.client.get("/docs.json").json(), config=config)
    statuses, wrong = Counter(), []
    for event in from_schema(described).execute():
        if isinstance(event, events.FatalError | events.NonFatalError):
            wrong.append(event)
        if not isinstance(event, events.ScenarioFinished):
            continue
        told = event.recorder
        for name, found in told.checks.items():
            wrong += [
                (told.label, check.name, check.failure_info.failure.message, told.cases[name].value.as_curl_command())
                for check in found
                if check.failure_info is not None
            ]
        for exchange in told.interactions.values():
            answer = exchange.response
            statuses[told.label, answer.status_code] += 1
            parts = (answer.content, repr(answer.headers).encode())
            wrong += [answer.text for part in parts for secret in wire.secrets if secret in part]
    assert not wrong, wrong[:3]
    assert sum(statuses.values()) >= CASES["described"], statuses
    assert min(statuses["POST /predict", 200], statuses["POST /predict", 422]) > 100
    assert min(statuses["POST /feedback", 202], statuses["POST /feedback", 401]) > 0


def test_anyone_may_try_it_with_schemathesis(server: Server) -> None:
    """`schemathesis run URL/docs.json`, as people run it: every limit of every field, and more at random."""
    program = Path(sys.executable).with_name("schemathesis")
    command = [program, "run", f"{server.client.base_url}/docs.json", "--phases", "coverage,fuzzing", "--no-color"]
    options = ["--seed", "1", "--max-examples", "60", "--header", f"Authorization: {BEARER['Authorization']}"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, cwd=server.logs.parent)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert int(re.search(r"(\d+) generated", done.stdout)[1]) > 500, done.stdout[-1000:]


# JSON that Python's own encoder does not write, and much that is none.
NUMBERS = "NaN Infinity -Infinity 1e400 -1e400 1e-400 -0 -0.0 1E5 01 +1 .5 1. 1e 0x10 1_000 9007199254740993".split()
NUMBERS += ["18446744073709551616", "-9223372036854775809", "9" * 400, "0." + "1" * 400]
TEXTS = r"\ud800 \udfff\ud800 \u0000 \x41 \u12 null NaT __class__ %s%n {0}".split() + ["\x00", "\n", "\\", "", " "]
TEXTS += ["\u2028", "\ufeff", "💥", "A" * 70_000]
TEXTS += "0000-01-01T00:00 9999-12-31T23:59:59 2013-02-30T10:00 2013-07-04T17:30\\n ２０１３-07-04T17:30".split()
TEXTS += "2013-03-10T02:30 2013-07-04T24:00 2013-07-04T17:30Z 2013-07-04T17:30+00".split()
ODD = ["", "undefined", "None", "True", "'x'", "/**/1", "[1,]", "[" * 2_000 + "]" * 2_000]
ODD += ['{"a":' * 2_000 + "1" + "}" * 2_000]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=6,
).map(json.dumps)
VALUES = st.one_of(JSON, st.sampled_from(NUMBERS), st.sampled_from(TEXTS).map('"{}"'.format), st.sampled_from(ODD))


@st.composite
def mutants(draw: st.DrawFn, record: dict[str, Any]) -> bytes:
    """A record as JSON text, some of whose fields have another value, are missing, are there twice, or are unknown."""
    pairs = [(json.dumps(name), json.dumps(value)) for name, value in record.items()]
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(pairs) - 1)) if pairs else 0
        change = draw(st.sampled_from("value value value value missing twice unknown moved".split()))
        if change == "unknown" or not pairs:
            pairs.insert(place, (draw(st.text(max_size=100).map(json.dumps) | st.sampled_from(ODD)), draw(VALUES)))
        elif change == "value":
            pairs[place] = (pairs[place][0], draw(VALUES))
        elif change == "twice":
            pairs.append((pairs[place][0], draw(VALUES)))
        else:
            pair = pairs.pop(place)
            pairs += [pair] if change == "moved" else []
    return ("{" + ",".join(f"{name}:{value}" for name, value in pairs) + "}").encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes of which some have been cut out, put in, or turned over."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(whole)))
        end = start + draw(st.integers(0, 8))
        put = draw(
            st.binary(max_size=4) | st.sampled_from([b"\r\n", b"\n", b"\0", b'"', b"\xff", b"\xef\xbb\xbf", b"\\"])
        )
        whole = whole[:start] + put + whole[end:]
    return whole


def bodies(record: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """Bodies that are almost right, lists of them, or nothing of the kind."""
    right = json.dumps(record).encode()
    one = mutants(record)
    listed = st.lists(one | st.just(right), max_size=4).map(lambda found: b"[" + b",".join(found) + b"]")
    many = st.integers(1, 3).map(lambda times: b"[" + b",".join([b"{}", right, b"0"][:times] * 800) + b"]")
    space = st.sampled_from([b" \n", b"\x0b", b"\xef\xbb\xbf", b"\xff\xfe"]).flatmap(lambda pad: one.map(pad.__add__))
    nested = one.map(lambda found: b"[" + found + b"]") | one.map(lambda found: b"[[" + found + b"]]")
    rest = [damaged(right), listed, nested, space, st.binary(max_size=200), VALUES.map(str.encode), many]
    return often(one, st.one_of(rest), times=1)


def post(path: str, body: bytes, *headers: bytes) -> bytes:
    """Return a request."""
    head = [f"POST {path} HTTP/1.1".encode(), b"Host: it", b"Content-Length: %d" % len(body), *headers, b"", body]
    return b"\r\n".join(head)


def test_bodies(server: Server, wire: Wire, sample: dict[str, Any]) -> None:
    """Broken predictions are answered with numbers, or refused with a reason."""
    seen: Counter[int] = Counter()

    @fuzz("bodies")
    @given(body=bodies(sample))
    def send(body: bytes) -> None:
        told = wire.ask(post("/predict", body))
        seen[told.status] += 1
        found = json.loads(told.body)
        if told.status == 200:
            assert body.lstrip()[:1] == (b"[" if isinstance(found, list) else b"{")
            for answer in found if isinstance(found, list) else [found]:
                assert math.isfinite(answer["probability"]) and math.isfinite(answer["priority"]), (body, answer)
                assert answer["fallback"] is None, (body, answer)
        else:
            assert told.status == 422 and 1 <= len(found["detail"]) <= 20, (body, told)
            assert all(fault["problem"] for fault in found["detail"])

    send()
    assert sum(seen.values()) >= CASES["bodies"] and min(seen[200], seen[422]) > 100, seen


def test_outcomes(server: Server, wire: Wire) -> None:
    """Nothing comes into the log of outcomes without the token, and nothing broken with it."""
    seen: Counter[int] = Counter()
    tokens = [b"Bearer " + TOKEN.encode(), b"", b"Bearer", b"Bearer ", b"bearer " + TOKEN.encode(), TOKEN.encode()]
    tokens += [b"Bearer " + TOKEN.encode()[:-1], b"Bearer " + TOKEN.encode() + b"x", b"Basic YTpi", b"Bearer \xff\xfe"]
    right = {"request_id": "a", "outcome": "late"}
    texts = st.binary(max_size=40).filter(lambda text: not re.search(rb"[\x00-\x1f\x7f]", text))
    authorised = often(st.just(tokens[0]), st.sampled_from(tokens) | texts)
    whole = st.text(min_size=1, max_size=80).map(lambda name: json.dumps({**right, "request_id": name}).encode())

    @fuzz("outcomes")
    @given(body=often(whole, bodies(right), times=1), token=authorised)
    def send(body: bytes, token: bytes) -> None:
        told = wire.ask(post("/feedback", body, b"Authorization: " + token))
        seen[told.status] += 1
        if token.strip() == tokens[0]:
            assert told.status in (202, 422), (body, told)
        else:
            assert told.status == 401, (token, body, told)

    send()
    assert sum(seen.values()) >= CASES["outcomes"] and min(seen[202], seen[422], seen[401]) > 100, seen


# fmt: off
METHODS = ["", "\x00", "GET\t", *"HEAD PUT DELETE OPTIONS TRACE PATCH CONNECT PROPFIND SEARCH QUERY get FOO".split()]
PATHS = "/ /predict /feedback /livez /readyz /model /card /dashboard /dashboard.json /docs.json /plan /metrics".split()
ODD_PATHS = [
    *"* ? predict //predict /predict/ /predict?x=%00 /predict#x /%70redict /predict%00 /%2e%2e/predict".split(),
    *"/PREDICT /predict\\ /;/predict /healthz /healthz/.. /é /%ff%fe /%ed%a0%80 /% /..%5c..%5cwindows /.env".split(),
    *"/metrics/ /metricsx /metrics/../model /schema.json /assets/ /static_content/ /static_content//etc/passwd".split(),
    *"/static_content/../../../etc/passwd /static_content/%2e%2e/%2e%2e/http_app.py /static_content/%00".split(),
    *"/static_content/swagger-ui.css http://elsewhere/predict http://elsewhere:99999999/ http://".split(),
    "/" + "a" * 20_000, "/" + "%2e" * 5_000, "/ready\u200bz", "/predict HTTP/1.1\r\nX: y",
]
FIELDS = {
    "X-Request-ID": ["a%0d%0aSet-Cookie: x", "a\rb", "a\nSet-Cookie: x", "\x00", "x" * 65, "../etc", "é", "", "1"],
    "traceparent": [f"00-{'a' * 32}-{'b' * 16}-01", f"00-{'0' * 32}-{'b' * 16}-01", "zz", "00-\r\n", "é"],
    "Content-Length": ["5, 5", "5 5", "\t5", "", *"0 -1 +5 1e3 0x10 99999999999 18446744073709551616".split()],
    "Transfer-Encoding": ["chunked", "identity", "gzip, chunked", "chunked, gzip", "xchunked", "chunked\x0b", ""],
    "Content-Type": ["", "text/html", "multipart/form-data", "application/json; charset=utf-7", "\xff"],
    "Content-Encoding": ["gzip", "br", "deflate, gzip", "zstd"],
    "Expect": ["100-continue", "the unexpected"],
    "Authorization": ["Basic YTpi", "Bearer", "Bearer \xff", "Bearer " + "x" * 5_000],
    "Connection": ["close", "upgrade", "keep-alive, upgrade", "Transfer-Encoding", "\x00"],
    "Upgrade": ["h2c", "websocket", "TLS/1.0"],
    "Host": ["", "a\r\nb", "[::", "\xff", "a" * 5_000],
    "Accept": ["\xff", "text/html;q=x", "application/openmetrics-text", "*/*," * 500],
    "Range": ["bytes=0-0", "bytes=junk", "bytes=" + ",".join(f"{i}-{i}" for i in range(500))],
    "If-Modified-Since": ["Mon, 99 Foo 99999 00:00:00 +9999999999", "\xff"],
    "X-Forwarded-For": ["127.0.0.1", "\xff"],
    "baggage": ["\xff=1", "=" * 1_000],
    "Cookie": ["a=b; " * 1_000],
    **dict.fromkeys(["", "a b", "X\x00", "Content-Length "], ["5"]),
}
# fmt: on
WORDS = st.text(st.characters(min_codepoint=32, exclude_characters="\x7f"), max_size=30)
FIELD = st.sampled_from(sorted(FIELDS)).flatmap(
    lambda name: (st.sampled_from(FIELDS[name]) | WORDS).map(lambda value: f"{name}: {value}")
)
NOISE = st.tuples(st.from_regex(r"[A-Za-z-]{1,12}", fullmatch=True), WORDS).map(": ".join)


@st.composite
def heads(draw: st.DrawFn, body: bytes) -> bytes:
    """A request with an odd method, path, version or header, for which there is a whole body or none."""
    known, quoted = st.sampled_from(PATHS), st.text(max_size=30).map(lambda text: "/" + quote(text, errors="replace"))
    path = draw(often(known, st.sampled_from(ODD_PATHS) | quoted | WORDS.map("/".__add__)))
    method = draw(often(st.sampled_from(["GET", "POST"]), st.sampled_from(METHODS)))
    versions = st.sampled_from("HTTP/1.0 HTTP/0.9 HTTP/2.0 HTTP/9.9 http/1.1 ICE/1.0".split())
    version = draw(often(st.just("HTTP/1.1"), versions, times=9))
    lines = [f"{method} {path} {version}", *draw(st.lists(FIELD | NOISE, max_size=3))]
    sent = draw(st.sampled_from(["length", "length", "chunked", "none"]))
    if sent == "length":
        lines.append(f"Content-Length: {len(body)}")
    if sent == "chunked":
        lines.append("Transfer-Encoding: chunked")
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:100], body[100:], b""))
    head = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogatepass")
    return head + (body if sent != "none" else b"")


LAST = b"GET /livez HTTP/1.1\r\nX-Request-ID: the-last\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def described(server: Server) -> set[int]:
    """Return the statuses of the description that are no fault of the server, and the three of any HTTP server."""
    paths = server.client.get("/docs.json").json()["paths"].values()
    told = {int(code) for path in paths for way in path.values() for code in way["responses"]}
    return {code for code in told if code < 500} | {400, 404, 405}


def test_heads(server: Server, wire: Wire, described: set[int], sample: dict[str, Any]) -> None:
    """Odd methods, paths and headers: a described status, and no header that the caller has thought of."""
    seen: Counter[int] = Counter()
    silent = 0

    @fuzz("heads")
    @given(request=heads(json.dumps(sample).encode()))
    def send(request: bytes) -> None:
        nonlocal silent
        answers = wire.all(request + LAST, patience=0.05)
        silent += not answers
        seen.update(told.status for told in answers if told.status != 100)
        assert {told.status for told in answers} <= described | {100}, (request, answers)

    send()
    assert sum(seen.values()) >= CASES["heads"] and min(seen[code] for code in (200, 400, 404, 405)) > 100, seen
    assert silent < CASES["heads"] / 4, "these wait for the rest of a body, and no one else waits with them"


def test_broken_http(server: Server, wire: Wire, described: set[int], sample: dict[str, Any]) -> None:
    """Bytes that were requests once, or never: 400, or an answer to what is still one."""
    body = json.dumps(sample).encode()
    chunked = b"POST /predict HTTP/1.1\r\nHost: it\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
    whole = [
        post("/predict", body),
        post("/predict", b"[]") * 3,
        chunked % (len(body), body),
        chunked[:-5] % (len(body), body) + b"0;x=y\r\nX: trailer\r\n\r\n",
        b"GET /model HTTP/1.1\r\nHost: it\r\nX-Request-ID: a\r\n\r\n",
    ]
    never = [
        bytes.fromhex("1603010200010001fc0303") + b"x" * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00" * 100,
        b"GET",
    ]
    lying = st.tuples(st.integers(0, 2 * len(body)), st.just(body)).map(
        lambda pair: b"POST /predict HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % pair
    )
    broken = st.one_of(*map(damaged, whole), lying, st.binary(max_size=300), st.sampled_from(never))
    seen: Counter[int] = Counter()
    sent = 0

    @fuzz("broken HTTP")
    @given(request=broken)
    def send(request: bytes) -> None:
        nonlocal sent
        sent += 1
        answers = wire.all(request + LAST, patience=0.05)
        seen.update(told.status for told in answers)
        assert {told.status for told in answers} <= described | {100}, (request, answers)

    send()
    assert sent >= CASES["broken HTTP"] and min(seen[200], seen[400], seen[422]) > 50, seen


def test_large_bodies(server: Server, wire: Wire, manifest: dict[str, Any], sample: dict[str, Any]) -> None:
    """At the limits and beyond them, in the shapes that are dearest to look at: an answer in time, and a short one."""
    service, right = manifest["service"], json.dumps(sample).encode()
    most, rows = service["body_kib"] * 1024, service["rows"]
    listed = lambda one, times: b"[" + b",".join([one] * times) + b"]"
    for body, status in {
        b"[" + b" " * (most - 2) + b"]": 422,
        b"[" + b" " * (most - 1) + b"]": 413,
        listed(right, rows): 200,
        listed(right, rows + 1): 422,
        listed(b"{}", rows): 422,
        listed(b"[]", most // 3 - 1): 422,
        b"[" + listed(b"{}", most // 3 - 2) + b"]": 422,
        b"{" + b",".join(b'"%d":1' % i for i in range(most // 11)) + b"}": 422,
        b'{"a":' * (most // 5): 422,
        b"[" * most: 422,
        b"[" + b"1" * (most - 2) + b"]": 422,
        b'{"origin":"' + b"A" * (most - 13) + b'"}': 422,
        b'{"' + b"A" * (most - 6) + b'":1}': 422,
    }.items():
        told = wire.ask(post("/predict", body))
        assert told.status == status, (body[:50], len(body), told)
    (told,) = wire.all(CHUNKED + b"100000\r\n%s\r\n" % (b" " * 2**20) * 5, patience=1)
    assert told.status == 413


def flood(wire: Wire, beginning: bytes, more: bytes, mib: int = 24) -> float:
    """Send `more` again and again; return how many MiB were taken before the server closed the connection."""
    wire.close()
    sent, part = 0, more * (2**18 // len(more))
    with contextlib.suppress(OSError):
        wire.open().sendall(beginning)
        while sent < mib * 2**20:
            sent += wire.open().send(part)
    wire.close()
    return sent / 2**20


CHUNKED = b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "a header": (b"GET /livez HTTP/1.1\r\nX: ", b"x"),
    "headers": (b"GET /livez HTTP/1.1\r\n", b"X: x\r\n"),
    "a path": (b"GET /", b"x"),
    "a trailer": (CHUNKED + b"2\r\n[]\r\n0\r\nX: ", b"x"),
    "an extension of a chunk": (CHUNKED + b"2;", b"x"),
    "requests behind one that waits": (post("/predict", b"[]")[:-1], b"GET / HTTP/1.1\r\n\r\n"),
    "requests nobody reads the answers to": (b"", b"GET /model HTTP/1.1\r\n\r\n"),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_does_not_end_is_cut_off(server: Server, wire: Wire, what: str) -> None:
    """Nothing can be sent without end, and nothing of it is kept."""
    before = worker(server).memory_info().rss
    assert flood(wire, *ENDLESS[what]) < 20, "of sockets' buffers there is not so much"
    assert worker(server).memory_info().rss - before < 32 * 2**20


def test_who_keeps_it_waiting_is_left(server: Server, wire: Wire, sample: dict[str, Any]) -> None:
    """Connections on which no head comes: they are closed in a while, and nobody waits for them."""
    beginnings = [b"", b"GET", b"GET /livez HTTP/1.1\r\nX: ", LAST.replace(b"close", b"keep-alive")]
    waiting = [(socket.create_connection(wire.place, timeout=20), beginning) for beginning in beginnings * 50]
    for connection, beginning in waiting:
        connection.sendall(beginning)
    time.sleep(0.5)
    for connection, beginning in waiting:
        connection.sendall(b"\r\n" if beginning[-4:] == b"\r\n\r\n" else b"x")  # a sign of life, but no head
    assert wire.ask(post("/predict", json.dumps(sample).encode())).status == 200
    end = time.monotonic() + 15
    for connection, _ in waiting:
        with connection, contextlib.suppress(ConnectionError):
            while connection.recv(2**16):  # an answer to what was whole, and then the end
                assert time.monotonic() < end
    assert time.monotonic() < end


def test_bodies_that_do_not_end(server: Server, wire: Wire, manifest: dict[str, Any], sample: dict[str, Any]) -> None:
    """Large ones are sent away before memory runs out; small ones are answered; afterwards all are."""
    most, before = manifest["service"]["body_kib"] * 1024, worker(server).memory_info().rss
    right = json.dumps(sample).encode()
    refused, open_ = 0, []
    for _ in range(40):
        connection = socket.create_connection(wire.place, timeout=SECONDS)
        open_.append(connection)
        with contextlib.suppress(ConnectionError):
            connection.sendall(post("/predict", b" " * most)[:-1])
    for connection in open_:
        connection.settimeout(0.05)
        with contextlib.suppress(TimeoutError):
            refused += connection.recv(100).startswith(b"HTTP/1.1 429 ")
    assert 0 < refused < 40 and worker(server).memory_info().rss - before < 160 * 2**20
    time.sleep(0.5)  # half a budget later what has not come to its end counts for no work
    assert wire.ask(post("/predict", right)).status == 200
    for connection in open_:
        connection.close()
    time.sleep(0.5)
    assert wire.ask(post("/predict", b"[" + b",".join([right] * 500) + b"]")).status == 200


def test_callers_make_no_metrics(server: Server, wire: Wire) -> None:
    """Paths, methods, ids and tokens that nobody has seen: no label of a metric is one of them."""
    before = len(server.client.get("/metrics").content)
    upgrade = b"Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: YQ==\r\n"
    for i in range(200):
        for path in (b"/static_content/%d.css", b"/metrics%d", b"/new/%d"):
            assert wire.ask(b"GET " + path % i + b" HTTP/1.1\r\nX-Request-ID: new-%d\r\n\r\n" % i).status == 404
        assert wire.all(b"GET /socket/%d HTTP/1.1\r\nHost: it\r\n%s\r\n" % (i, upgrade), patience=0.02)[0].status == 404
    assert len(server.client.get("/metrics").content) - before < 1_000


def test_no_request_is_smuggled(server: Server, wire: Wire) -> None:
    """A body behind an upgrade that is not taken up is no request, however it comes; nor is what follows a refusal."""
    hidden = b"GET /model HTTP/1.1\r\nX-Request-ID: hidden\r\n\r\n"
    for name in (b"h2c", b"websocket"):
        head = b"POST /predict HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: %s\r\nContent-Length: %d\r\n\r\n"
        for pause in (0, 0.1):
            wire.close()
            wire.open().sendall(head % (name, len(hidden)))
            time.sleep(pause)
            with contextlib.suppress(ConnectionError):
                wire.open().sendall(hidden)
                heard = wire.open().recv(2**16)
                assert heard.startswith(b"HTTP/1.1 400 ") and b"send no Upgrade" in heard
                assert not wire.open().recv(2**16), "and the connection is closed"
    both = b"POST /predict HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert [told.status for told in wire.all(both + hidden)] == [400]
    large = b"POST /predict HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n"
    assert [told.status for told in wire.all(large + hidden)] == [413], "what follows is still of the body"


def test_a_broken_request_behind_a_good_one(server: Server, wire: Wire, sample: dict[str, Any]) -> None:
    """The connection is closed under the first; that is no error of the service (see `unharmed`)."""
    good = post("/predict", json.dumps(sample).encode())
    for _ in range(50):
        assert {told.status for told in wire.all(good * 2 + b"\x00")} <= {200, 400}
