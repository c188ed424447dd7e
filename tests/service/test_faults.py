"""What happens to the built Bento when things go wrong around it."""

import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from server import Server, becomes_ready, launch, start

from fieldbook.log import read

pytestmark = pytest.mark.slow


def load(server: Server, request: dict[str, Any], answered: list[str], refused: list[str]) -> None:
    """Send requests one after the other until the server is gone; note the ids of those that were answered."""
    with httpx.Client(base_url=server.client.base_url, timeout=5) as client:
        for _ in range(5_000):
            try:
                told = client.post("/predict", json=request)
            except httpx.TransportError:
                return
            (answered if told.status_code == 200 else refused).append(told.json().get("request_id", told.text))


def test_no_answered_prediction_is_lost_when_it_is_killed(
    project: Path, manifest: dict[str, Any], tmp_path: Path
) -> None:
    """kill -9 under load: each answered request is in the log, and each line is whole."""
    server, answered, refused = start(project, tmp_path), [], []
    arguments = (server, manifest["samples"][0]["request"], answered, refused)
    clients = [threading.Thread(target=load, args=arguments) for _ in range(4)]
    for client in clients:
        client.start()
    while len(answered) < 200 and server.process.poll() is None:
        clients[0].join(timeout=0.05)
    server.stop(signal.SIGKILL)
    for client in clients:
        client.join(timeout=20)
    assert len(answered) >= 200 and refused == []
    assert set(answered) <= set(read(server.logs)["request_id"])


def test_it_starts_again_where_it_stopped(project: Path, manifest: dict[str, Any], tmp_path: Path) -> None:
    """SIGTERM ends it, and a second start adds to the same logs."""
    for _ in range(2):
        server = start(project, tmp_path)
        assert server.client.post("/predict", json=manifest["samples"][0]["request"]).status_code == 200
        server.stop()
    assert len(read(server.logs)) == 2


def test_a_damaged_model_is_not_served(project: Path, tmp_path: Path) -> None:
    """One flipped bit in the graph: the server does not become ready, and says why."""
    damaged = tmp_path / "bento"
    shutil.copytree(project / "data/bento", damaged)
    graph = damaged / "src/data/champion/model.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.chmod(0o644)
    graph.write_bytes(content)
    server = launch(project, tmp_path, damaged)
    try:
        assert not becomes_ready(server, seconds=8)
        assert "is not the graph that manifest.json describes" in server.output.read_text()
    finally:
        server.stop(signal.SIGKILL)
