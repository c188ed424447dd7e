"""What happens to the built Bento when things go wrong around it. Each has an answer that is stated here."""

import contextlib
import gzip
import json
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import duckdb
import httpx
import psutil
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from server import BEARER, Server, becomes_ready, changed, free_port, launch, start

from fieldbook.observe.log import compact, outcomes, read, view

pytestmark = pytest.mark.slow
KILLS = 20


@pytest.fixture
def request_body(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a request."""
    return manifest["samples"][0]["request"]


@contextlib.contextmanager
def running(project: Path, folder: Path, **options: Any) -> Iterator[Server]:
    """A server that is stopped at the end, if it has not been."""
    server = start(project, folder, **options)
    try:
        yield server
    finally:
        server.stop(signal.SIGKILL)


class Load:
    """Clients that ask one after the other, each on a connection it keeps, until told to end or nobody answers.

    Attributes
    ----------
    answered : ids of the requests that got an answer.
    other : status codes of other answers.
    broken : ids of the requests that got none.
    """

    def __init__(self, server: Server, request: dict[str, Any], clients: int = 4) -> None:
        self.url, self.request, self.over = str(server.client.base_url), request, threading.Event()
        self.answered: list[str] = []
        self.other: list[int] = []
        self.broken: list[str] = []
        self.threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=10) as client:
            for _ in range(20_000):
                if self.over.is_set():
                    return
                try:
                    name = uuid.uuid4().hex
                    told = client.post("/predict", json=self.request, headers={"X-Request-ID": name})
                except httpx.ConnectError:
                    return  # nobody there: nothing was accepted
                except httpx.TransportError:
                    self.broken.append(name)
                    return
                if told.is_success:
                    self.answered.append(told.json()["request_id"])
                else:
                    self.other.append(told.status_code)

    def until(self, answers: int, seconds: float = 30) -> None:
        """Wait for so many answers."""
        end = time.monotonic() + seconds
        while len(self.answered) < answers and time.monotonic() < end:
            time.sleep(0.01)
        assert len(self.answered) >= answers, (len(self.answered), self.other, self.broken)

    def end(self) -> None:
        """Stop asking."""
        self.over.set()
        for thread in self.threads:
            thread.join(timeout=20)


def test_no_answered_prediction_is_lost_when_it_is_killed(
    project: Path, request_body: dict[str, Any], tmp_path: Path
) -> None:
    """kill -9 under load, twenty times: each answered request is in the log, and each line is whole after a restart."""
    answered: set[str] = set()
    for _ in range(KILLS):
        server = start(project, tmp_path)
        load = Load(server, request_body)
        load.until(50)
        server.stop(signal.SIGKILL)
        load.end()
        assert load.other == []
        answered |= set(load.answered)
    with running(project, tmp_path) as server:
        lines = [line for path in server.logs.glob("predictions-*.jsonl") for line in path.read_bytes().splitlines()]
        logged = {json.loads(line)["request_id"] for line in lines}
    assert len(answered) >= 50 * KILLS and answered <= logged


def test_a_killed_worker_is_replaced(project: Path, request_body: dict[str, Any], tmp_path: Path) -> None:
    """The parent starts another, and the log has what the first one answered."""
    with running(project, tmp_path) as server:
        first = server.client.post("/predict", json=request_body).json()["request_id"]
        worker = next(child for child in psutil.Process(server.process.pid).children() if _is_worker(child))
        worker.kill()
        assert becomes_ready(server, seconds=20)
        second = server.client.post("/predict", json=request_body).json()["request_id"]
        assert {first, second} <= set(read(server.logs)["request_id"])


def _is_worker(process: psutil.Process) -> bool:
    return "worker" in " ".join(process.cmdline())


def test_a_worker_ends_with_its_parent(project: Path, request_body: dict[str, Any], tmp_path: Path) -> None:
    """kill -9 of the parent alone: nobody is left that holds the port."""
    server = start(project, tmp_path)
    children = psutil.Process(server.process.pid).children(recursive=True)
    server.process.kill()
    server.process.wait()
    _, left = psutil.wait_procs([child for child in children if _is_worker(child)], timeout=15)
    assert not left
    with pytest.raises(httpx.ConnectError):
        server.client.get("/livez")


def test_sigterm_loses_nothing(project: Path, request_body: dict[str, Any], tmp_path: Path) -> None:
    """SIGTERM under load: whoever was heard is answered, also who was in the middle of sending; then it ends.

    A connection made in the last moment may be cut before anyone has listened to it; nothing of it is in the log.
    """
    with running(project, tmp_path) as server:
        load = Load(server, request_body, clients=8)
        load.until(200)
        body = json.dumps(request_body).encode()
        with slow_request(server, len(body)) as sending:
            sending.sendall(body[:100])
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            sending.sendall(body[100:])
            status, answer = _response(sending)
        server.process.wait(timeout=20)
        load.end()
        assert status == 200 and answer["probability"] > 0
        assert load.other == [] and len(load.broken) <= 8
        assert {*load.answered, answer["request_id"]} == set(read(server.logs)["request_id"])


def test_it_starts_again_where_it_stopped(project: Path, request_body: dict[str, Any], tmp_path: Path) -> None:
    """A second start adds to the same logs."""
    for _ in range(2):
        server = start(project, tmp_path)
        assert server.client.post("/predict", json=request_body).status_code == 200
        server.stop()
    assert len(read(server.logs)) == 2


def test_a_damaged_model_does_not_start(project: Path, tmp_path: Path) -> None:
    """One flipped bit in a graph: it ends at once, with one line that says which and what to do."""
    damaged = changed(project, tmp_path)
    graph = damaged / "src/data/champion/model.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.unlink()
    graph.write_bytes(content)
    server = launch(project, tmp_path, damaged)
    try:
        assert server.process.wait(timeout=30) != 0
        told = [line for line in server.output.read_text().splitlines() if line.startswith("fieldbook:")]
        assert len(told) == 1 and "model.onnx is not the one that manifest.json describes" in told[0]
        assert "Traceback" not in server.output.read_text()
    finally:
        server.stop(signal.SIGKILL)


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"FIELDBOOK_TOKEN_FILE": "/nowhere/token"}, "which cannot be read"),
        ({"FIELDBOOK_LOGS": "/proc/logs"}, "/proc/logs"),
        ({"FIELDBOOK_OPERATIONS": "127.0.0.1"}, "must be HOST:PORT"),
        ({"FIELDBOOK_CHAMPION": "/nowhere"}, "holds no manifest.json"),
    ],
)
def test_a_worker_that_cannot_start_ends_the_server(
    project: Path, tmp_path: Path, env: dict[str, str], said: str
) -> None:
    """What only a worker can find out is told in one line, and the server ends; nobody is left who listens."""
    server = launch(project, tmp_path, **env)
    try:
        assert server.process.wait(timeout=30) != 0
        lines = [line for line in server.output.read_text().splitlines() if line.startswith("fieldbook:")]
        assert len(lines) == 1 and said in lines[0], server.output.read_text()
        assert "Traceback" not in server.output.read_text()
        with pytest.raises(httpx.ConnectError):
            server.client.get("/livez")
    finally:
        server.stop(signal.SIGKILL)


def test_two_servers_on_one_port(project: Path, request_body: dict[str, Any], tmp_path: Path) -> None:
    """The second one says that the port is taken, and ends; the first one does not notice."""
    with running(project, tmp_path) as first:
        (tmp_path / "second").mkdir()
        second = launch(project, tmp_path / "second", port=first.client.base_url.port)
        try:
            assert second.process.wait(timeout=30) != 0
            assert "port" in second.output.read_text().lower()
        finally:
            second.stop(signal.SIGKILL)
        assert first.client.post("/predict", json=request_body).status_code == 200


@contextlib.contextmanager
def slow_request(server: Server, length: int) -> Iterator[socket.socket]:
    """A connection on which the head of a request has been sent."""
    url = server.client.base_url
    with socket.create_connection((url.host, url.port), timeout=20) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: {url.host}\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode())
        yield connection


def _response(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    received = b""
    while b"\r\n\r\n" not in received or not received.endswith(b"}"):
        part = connection.recv(65536)
        if not part:
            break
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def test_a_slow_client_is_cut_off(project: Path, request_body: dict[str, Any], tmp_path: Path) -> None:
    """Who does not send the body in time gets 408; meanwhile others are answered."""
    with running(project, tmp_path, bento=changed(project, tmp_path, body_seconds=0.5)) as server:
        with slow_request(server, 1000) as connection:
            connection.sendall(b'{"origin": ')
            assert server.client.post("/predict", json=request_body).status_code == 200
            status, told = _response(connection)
        assert status == 408 and "within 0.5 s" in told["error"]


def test_a_client_that_hangs_up(project: Path, request_body: dict[str, Any], tmp_path: Path) -> None:
    """Nothing is logged for it, and nothing is left behind."""
    with running(project, tmp_path) as server:
        for _ in range(20):
            with slow_request(server, 1000) as connection:
                connection.sendall(b'{"origin": ')
        assert server.client.post("/predict", json=request_body).status_code == 200
        assert len(read(server.logs)) == 1
        end = time.monotonic() + 5
        while (inside := _metric(server, "fieldbook_in_flight")) and time.monotonic() < end:
            time.sleep(0.1)
        assert inside == 0
        assert "Traceback" not in server.output.read_text()


def test_a_burst_is_answered_or_sent_away(project: Path, request_body: dict[str, Any], tmp_path: Path) -> None:
    """400 at once, of 50 rows, with little time: each is answered, or told to come again later; then all is well."""
    with running(project, tmp_path, bento=changed(project, tmp_path, budget_ms=60)) as server:
        url = f"{server.client.base_url}/predict"

        def ask(_: int) -> httpx.Response:
            return httpx.post(url, json=[request_body] * 50, timeout=30)

        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(ask, range(400)))
        codes = {answer.status_code for answer in answers}
        assert codes <= {200, 429} and 200 in codes
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 429)
        assert server.client.post("/predict", json=request_body).status_code == 200
        told = sum(answer.status_code == 200 for answer in answers)
        assert len(read(server.logs)) == 50 * told + 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"nobody here may mount a small disk: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_disk_is_refused(project: Path, request_body: dict[str, Any], small_disk: Path, tmp_path: Path) -> None:
    """Where the scope says refuse: 503 and not ready, no half row; and once there is room again, it goes on."""
    filler = small_disk / "filler"
    with running(project, tmp_path, FIELDBOOK_LOGS=str(small_disk)) as server:
        assert server.client.post("/predict", json=request_body).status_code == 200
        filler.write_bytes(b"x" * 200_000)
        codes = [server.client.post("/predict", json=[request_body] * 20).status_code for _ in range(10)]
        assert codes[-1] == 503 and server.client.get("/readyz").status_code == 503
        assert _metric(server, "fieldbook_log_lag_seconds") > 0
        assert "the log cannot be written" in server.output.read_text()
        filler.unlink()
        answer = server.client.post("/predict", json=request_body)
        assert answer.status_code == 200 and _metric(server, "fieldbook_log_lag_seconds") == 0
        logged = read(small_disk)
        assert len(logged) == 2 + 20 * codes.count(200)
        assert logged.request_id.iloc[-1] == answer.json()["request_id"]


def test_a_full_disk_is_answered_and_counted(
    project: Path, request_body: dict[str, Any], small_disk: Path, tmp_path: Path
) -> None:
    """Where the scope says answer: 200, and what was not logged is counted."""
    bento = changed(project, tmp_path, when_log_fails="answer")
    with running(project, tmp_path, bento=bento, FIELDBOOK_LOGS=str(small_disk)) as server:
        server.client.post("/predict", json=request_body)
        (small_disk / "filler").write_bytes(b"x" * 200_000)
        codes = [server.client.post("/predict", json=[request_body] * 20).status_code for _ in range(10)]
        assert set(codes) == {200} and server.client.get("/readyz").status_code == 200
        assert len(read(small_disk)) + _metric(server, "fieldbook_log_lost_rows_total") == 201


def _metric(server: Server, name: str) -> float:
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def test_a_clock_that_jumps(project: Path, request_body: dict[str, Any], tmp_path: Path) -> None:
    """A day forward, a year back: answers, budgets and files do not depend on the clock; rows tell what it showed."""
    faked = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if faked is None:
        pytest.skip("needs Debian's package faketime")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    env = {"LD_PRELOAD": str(faked), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    with running(project, tmp_path, FAKETIME_DONT_FAKE_MONOTONIC="1", **env) as server:
        ids = []
        for jump in ("+0", "+1d", "-365d", "+0"):
            clock.write_text(jump)
            answer = server.client.post("/predict", json=request_body)
            assert answer.status_code == 200 and answer.json()["fallback"] is None
            ids.append(answer.json()["request_id"])
        logged = read(server.logs).set_index("request_id").loc[ids]
        days = logged["time"].str[:4].astype(int)
        assert days.iloc[2] < days.iloc[0] and len(list(server.logs.glob("predictions-*"))) == 1


def test_a_model_that_hangs_is_replaced(project: Path, request_body: dict[str, Any], tmp_path: Path) -> None:
    """A budget too small for any model: the heuristic answers, and says why it is the one."""
    with running(project, tmp_path, bento=changed(project, tmp_path, budget_ms=0.001)) as server:
        told = server.client.post("/predict", json=request_body).json()
        assert told["fallback"] == "late" and told["also"] is None and 0 < told["probability"] < 1
        assert _metric(server, "fieldbook_fallbacks_total") == 1
        assert read(server.logs).fallback.tolist() == ["late"]


def test_the_log_is_read_while_it_is_written(project: Path, request_body: dict[str, Any], tmp_path: Path) -> None:
    """pandas, DuckDB and the compaction, beside a server under load; outcomes find their predictions in all of it."""
    bento = changed(project, tmp_path, segment_minutes=0.005)  # a new file every 0.3 s
    with running(project, tmp_path, bento=bento) as server:
        load = Load(server, request_body)
        compacted = 0
        for _ in range(10):
            load.until(len(load.answered) + 100)
            compacted += len(compact(server.logs))
            known = set(load.answered)
            assert known <= set(read(server.logs).request_id)
            counted = duckdb.execute(f"SELECT count(DISTINCT request_id) FROM {view(server.logs)}").fetchall()[0][0]
            assert counted >= len(known)
        load.end()
        assert compacted > 0
        told = [{"request_id": name, "outcome": "late"} for name in load.answered[:50]]
        assert server.client.post("/feedback", json=told, headers=BEARER).status_code == 202
        joined, unknown = outcomes(server.logs)
        assert joined.outcome.notna().sum() == 50 and unknown.empty
        assert joined.request_id.is_unique and set(load.answered) <= set(joined.request_id)


def test_a_new_model_keeps_what_was_said(project: Path, request_body: dict[str, Any], tmp_path: Path) -> None:
    """The next version, hardly surer than the threshold, does not flip what the one before decided."""
    steady = {"by": ["origin", "destination", "carrier", "scheduled_departure"], "margin": 0.99}
    bento = changed(project, tmp_path, steady=steady)
    with running(project, tmp_path, bento=bento) as server:
        before = server.client.post("/predict", json=request_body).json()
        assert before["kept"] is False
        server.stop()
    manifest = bento / "src/data/champion/manifest.json"
    told = json.loads(manifest.read_text())
    told["version"] = "another"
    costs = told["framing"]["costs"]  # turned round, so that the same probability is decided otherwise
    late = before["decision"] == told["framing"]["positive"]
    costs["false_alarm"], costs["missed"] = (1e6, 1) if late else (1, 1e6)
    manifest.write_text(json.dumps(told))
    with running(project, tmp_path, bento=bento) as server:
        after = server.client.post("/predict", json=request_body).json()
        other = server.client.post("/predict", json={**request_body, "carrier": "ZZ"}).json()
    assert after["kept"] is True and after["decision"] == before["decision"] and after["model_version"] == "another"
    assert other["kept"] is False and other["decision"] != before["decision"]


def test_operations_have_a_port_of_their_own(project: Path, request_body: dict[str, Any], tmp_path: Path) -> None:
    """Nothing but predictions, feedback and health on the public port, where that is asked for."""
    port = free_port()
    with running(project, tmp_path, FIELDBOOK_OPERATIONS=f"127.0.0.1:{port}") as server:
        private = [
            "/",
            "/docs.json",
            "/model",
            "/card",
            "/metrics",
            "/plan",
            "/dashboard",
            "/static_content/swagger-ui.css",
        ]
        assert {server.client.get(path).status_code for path in private} == {404}
        assert server.client.post("/predict", json=request_body).status_code == 200
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as inside:
            assert {path: inside.get(path).status_code for path in private} == dict.fromkeys(private, 200)
            assert "fieldbook_rows_total 1.0" in inside.get("/metrics").text


def test_a_token_from_a_file(project: Path, request_body: dict[str, Any], tmp_path: Path) -> None:
    """As container platforms mount secrets."""
    (tmp_path / "token").write_text("from a file\n")
    with running(project, tmp_path, FIELDBOOK_TOKEN_FILE=str(tmp_path / "token")) as server:
        told = {"request_id": "any", "outcome": "late"}
        assert server.client.post("/feedback", json=told, headers=BEARER).status_code == 401
        right = {"Authorization": "Bearer from a file"}
        assert server.client.post("/feedback", json=told, headers=right).status_code == 202
        assert "from a file" not in server.output.read_text()


def test_the_log_goes_to_a_collector(project: Path, request_body: dict[str, Any], tmp_path: Path) -> None:
    """With one setting rows arrive at an OTLP receiver, with their trace; without the receiver nobody waits."""
    received: list[ExportLogsServiceRequest] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            received.append(ExportLogsServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    collector = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    place, trace = f"http://127.0.0.1:{collector.server_port}", "4bf92f3577b34da6a3ce929d0e0e4736"
    with running(project, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=place) as server:
        headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        answer = server.client.post("/predict", json=request_body, headers=headers)
        end = time.monotonic() + 20  # rows are sent in batches, every five seconds
        while not received and time.monotonic() < end:
            time.sleep(0.1)
        collector.shutdown()
        collector.server_close()
        assert server.client.post("/predict", json=request_body).status_code == 200
        server.stop()
    rows = [
        record
        for told in received
        for resource in told.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]
    fields = {item.key: item.value for item in rows[0].body.kvlist_value.values}
    assert fields["request_id"].string_value == answer.json()["request_id"] and rows[0].trace_id.hex() == trace
