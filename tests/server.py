"""A real server: the built Bento, in processes of its own, on a free port."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

TOKEN = "a token for tests"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@dataclass
class Server:
    """A running Bento."""

    process: subprocess.Popen
    client: httpx.Client
    logs: Path
    output: Path

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to the server and all its workers, and wait until it is gone."""
        workers = []
        with contextlib.suppress(psutil.NoSuchProcess):
            workers = psutil.Process(self.process.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, how)
        if how == signal.SIGKILL:  # workers lead groups of their own, and outlive a parent that could not tell them
            for worker in workers:
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()
        self.process.wait(timeout=20)
        _, left = psutil.wait_procs(workers, timeout=20)
        assert not left, f"workers are left behind: {left}"


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def changed(project: Path, folder: Path, **service: Any) -> Path:
    """Copy the Bento, with other settings of the service in its manifest; return the copy."""
    bento = folder / "bento"
    shutil.copytree(project / "data/bento", bento)
    manifest = bento / "src/data/champion/manifest.json"
    told = json.loads(manifest.read_text())
    told["service"] |= service
    manifest.unlink()  # it may be a link into DVC's cache
    manifest.write_text(json.dumps(told))
    return bento


def launch(project: Path, folder: Path, bento: Path | None = None, port: int = 0, **env: str) -> Server:
    """Start the Bento as `make serve` does.

    Parameters
    ----------
    project : the project's folder.
    folder : takes logs, output and BentoML's own files.
    bento : another Bento than data/bento.
    port : a free one if left out.
    env : more variables of the environment.
    """
    port, output = port or free_port(), folder / "output"
    settings = {
        "BENTOML_HOME": str(folder / "bentoml"),
        "BENTOML_CONFIG": str(project / "conf/deploy/bentoml.yaml"),
        "FIELDBOOK_LOGS": str(folder / "logs"),
        "BENTOML_DO_NOT_TRACK": "True",
        "FIELDBOOK_TOKEN": TOKEN,
        **env,
    }
    inherited = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    bentoml = Path(sys.executable).with_name("bentoml")
    command = [bentoml, "serve", str(bento or project / "data/bento"), "--host", "127.0.0.1", "--port", str(port)]
    with output.open("w") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=inherited | settings, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    logs = Path(settings["FIELDBOOK_LOGS"])
    return Server(process, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10), logs, output)


def becomes_ready(server: Server, seconds: float = 60) -> bool:
    """Wait until the server is ready; return whether it was in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if server.client.get("/readyz", timeout=1).status_code == 200:
                return True
        time.sleep(0.1)
    return False


def start(project: Path, folder: Path, bento: Path | None = None, port: int = 0, **env: str) -> Server:
    """Start the Bento, as `launch` does, and wait until it is ready."""
    server = launch(project, folder, bento, port, **env)
    if not becomes_ready(server):
        server.stop(signal.SIGKILL)
        raise AssertionError(f"the server did not become ready:\n{server.output.read_text()[-2000:]}")
    return server
