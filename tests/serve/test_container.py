"""The image: builds from the Bento, answers as the champion does, runs locked down, and stops when told to."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.container

ROOT = Path(__file__).resolve().parents[2]
BASE = "docker.io/library/python:3.11-slim"
SCRIPT = ROOT / "conf" / "deploy" / "container.sh"
HARDENED = [
    "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--volume", "/logs",
]  # fmt: skip
SHELLS = ["/usr/bin/dash", "/usr/bin/bash"]  # of Debian; sh is a link to the first
TRAINING_ONLY = ["pandas", "sklearn", "torch", "mlflow", "hydra", "dvc", "skl2onnx"]


def run(*command: str | Path, seconds: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command and return what it said, whatever its exit status."""
    words, everything = [str(word) for word in command], {**os.environ, **env}
    return subprocess.run(words, check=False, capture_output=True, text=True, timeout=seconds, env=everything)


@dataclass
class Container:
    """A running container.

    Attributes
    ----------
    engine : docker or podman.
    name : the container's.
    url : where its port 3000 is published.
    """

    engine: str
    name: str
    url: str = ""

    def do(self, verb: str, *words: str) -> str:
        """Return the output of `engine verb words`, which must succeed."""
        done = run(self.engine, verb, *words)
        assert done.returncode == 0, f"{self.engine} {verb} {words}: {done.stderr}"
        return done.stdout

    def inside(self, *command: str) -> str:
        """Return the output of a command run inside."""
        return self.do("exec", self.name, *command)

    def state(self) -> dict[str, Any]:
        """Return what the engine knows of its state."""
        return json.loads(self.do("inspect", "--format", "{{json .State}}", self.name))


def wait_until_ready(container: Container, seconds: float = 60) -> None:
    """Return when /readyz answers 200; fail with the container's log if it ends first or the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and container.state()["Running"]:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{container.url}/readyz", timeout=2).status_code == 200:
                return
        time.sleep(0.2)
    log = run(container.engine, "logs", container.name)
    pytest.fail(f"the container was not ready within {seconds:.0f} s or ended before:\n{log.stdout}{log.stderr}")


@contextlib.contextmanager
def started(engine: str, image: str, *options: str) -> Iterator[Container]:
    """Start the image, locked down, on a free port of the loopback; remove it and its volume at the end."""
    container = Container(engine, f"fieldbook-test-{uuid.uuid4().hex[:12]}")
    try:
        published = ["--publish", "127.0.0.1::3000"]
        container.do("run", "--detach", "--name", container.name, *published, *HARDENED, *options, image)
        container.url = "http://" + container.do("port", container.name, "3000/tcp").split()[0]
        wait_until_ready(container)
        yield container
    finally:
        run(engine, "rm", "--force", "--volumes", container.name)


@pytest.fixture(scope="module")
def engine() -> str:
    """Return the engine that the script would use, or skip."""
    found = run(SCRIPT, "--engine")
    if found.returncode != 0:
        pytest.skip(found.stderr.strip())
    return found.stdout.strip()


@pytest.fixture(scope="module")
def image(engine: str) -> str:
    """Build the image as `make container` does, and return its name."""
    built = run(SCRIPT, seconds=900, CONTAINER_ENGINE=engine)
    assert built.returncode == 0, f"{built.stdout[-2000:]}\n{built.stderr[-2000:]}"
    name = next(line.split()[1] for line in built.stdout.splitlines() if line.startswith("Image: "))
    tried = run(engine, "run", "--rm", "--entrypoint", "/bin/true", name)
    if tried.returncode != 0 and not os.environ.get("CI"):  # the engine's fault, not the image's; in CI it must work
        pytest.skip(f"{engine} cannot start containers here ({tried.stderr.strip()[-160:]}); .ci/container may mend it")
    return name


@pytest.fixture(scope="module")
def container(engine: str, image: str) -> Iterator[Container]:
    """Start the container that the tests share."""
    with started(engine, image) as running:
        yield running


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    """Return the manifest that the Bento carries."""
    return json.loads((ROOT / "data" / "bento" / "src" / "data" / "champion" / "manifest.json").read_text())


def test_answers_as_the_manifest_promises(container: Container, manifest: dict[str, Any]) -> None:
    assert manifest["samples"]
    for sample in manifest["samples"]:
        response = httpx.post(f"{container.url}/predict", json=sample["request"], timeout=10)
        assert response.status_code == 200, response.text
        assert abs(response.json()["probability"] - sample["answer"]["probability"]) < 1e-5
        assert response.json()["model_version"] == manifest["version"]


def test_every_answer_is_logged_on_the_volume(container: Container, manifest: dict[str, Any]) -> None:
    request, mark = manifest["samples"][0]["request"], f"test-{uuid.uuid4().hex}"
    answer = httpx.post(f"{container.url}/predict", json=request, headers={"x-request-id": mark}, timeout=10)
    assert answer.status_code == 200, answer.text
    log = container.inside(
        "python", "-c", "import glob; print(*(open(p).read() for p in glob.glob('/logs/pred*')), sep='', end='')"
    )
    rows = [row for row in map(json.loads, log.splitlines()) if row["request_id"] == mark]
    assert [row["probability"] for row in rows] == [answer.json()["probability"]]
    assert rows[0]["inputs"].keys() == request.keys()


def test_the_server_has_no_privileges(container: Container) -> None:
    assert int(container.inside("id", "-u")) != 0
    status = dict(line.split(":", 1) for line in container.inside("cat", "/proc/1/status").splitlines())
    assert all(int(user) != 0 for user in status["Uid"].split())
    assert int(status["CapEff"], 16) == 0
    assert int(status["NoNewPrivs"]) == 1


def test_the_image_is_read_only_and_the_logs_are_not(container: Container) -> None:
    for place in ("/home/bentoml/bento/new", "/app/.venv/new", "/new"):
        refused = run(container.engine, "exec", container.name, "touch", place)
        assert refused.returncode != 0 and "Read-only" in refused.stderr
    container.inside("touch", "/logs/new")


def test_the_image_has_no_training_packages(container: Container) -> None:
    ask = "import importlib.util, sys; print([name for name in sys.argv[1:] if importlib.util.find_spec(name)])"
    found = container.inside("python", "-c", ask, "bentoml", "onnxruntime", *TRAINING_ONLY)
    assert found.strip() == "['bentoml', 'onnxruntime']"


def test_it_needs_no_shell_and_takes_its_token_from_a_file(engine: str, image: str, tmp_path: Path) -> None:
    """Without a shell it starts, answers, and takes outcomes from who has the mounted token."""
    token = tmp_path / "token"
    token.write_text("mounted\n")
    token.chmod(0o644)
    hidden = [word for shell in SHELLS for word in ("--volume", f"/dev/null:{shell}:ro")]
    secret = ["--volume", f"{token}:/run/token:ro", "--env", "FIELDBOOK_TOKEN_FILE=/run/token"]
    with started(engine, image, *hidden, *secret) as running:
        assert run(engine, "exec", running.name, "/bin/sh", "-c", "true").returncode != 0
        told = {"request_id": "any", "outcome": "late"}
        codes = [
            httpx.post(f"{running.url}/feedback", json=told, headers={"Authorization": f"Bearer {word}"}).status_code
            for word in ("guessed", "mounted")
        ]
        assert codes == [401, 202]
    assert "mounted" not in run(engine, "history", "--no-trunc", image).stdout


def test_the_bill_of_materials_is_what_is_installed(container: Container) -> None:
    """Each installed package is listed with its version, and each file that may be installed with its hash."""
    code = "from importlib.metadata import distributions as d; print(*(f'{p.name}=={p.version}' for p in d()))"
    installed = {_plain(name) for name in container.inside("/app/.venv/bin/python", "-c", code).split()}
    listed = json.loads(container.inside("cat", "/home/bentoml/bento/src/sbom.json"))["components"]
    assert installed <= {_plain(f"{part['name']}=={part['version']}") for part in listed}
    assert all(part["externalReferences"][0]["hashes"] for part in listed)


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def test_it_is_small(container: Container, engine: str, image: str) -> None:
    """The image adds less than 250 MB to its base, and a worker that has answered holds less than 200 MB."""
    sizes = [int(run(engine, "image", "inspect", "--format", "{{.Size}}", name).stdout) for name in (image, BASE)]
    assert sizes[0] - sizes[1] < 250e6, f"{(sizes[0] - sizes[1]) / 1e6:.0f} MB"
    code = "import glob; print(*(open(p).read() for p in glob.glob('/proc/[0-9]*/status')))"
    held = [int(kilobytes) for kilobytes in re.findall(r"VmRSS:\s*(\d+)", container.inside("python", "-c", code))]
    assert max(held) < 200_000, f"{max(held) / 1000:.0f} MB"


def test_sigterm_ends_it(engine: str, image: str) -> None:
    with started(engine, image) as running:
        running.do("stop", "-t", "10", running.name)  # SIGTERM, and SIGKILL ten seconds later
        state = running.state()
        assert not state["Running"]
        assert state["ExitCode"] in (0, 143), f"exit status {state['ExitCode']}; 137 is a kill"


def test_an_engine_that_does_not_answer_is_told_in_one_line() -> None:
    told = run(SCRIPT, CONTAINER_ENGINE="no-such-engine")
    assert told.returncode == 1 and told.stdout == ""
    assert len(told.stderr.splitlines()) == 1 and "no-such-engine" in told.stderr
