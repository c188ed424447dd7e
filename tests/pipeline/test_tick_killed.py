"""A tick that learns a model anew is killed in the middle of it, again and again; the next one makes it good."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from scratch import BIN, Project

pytestmark = pytest.mark.slow
KILLS, NOW = 10, "2024-04-05T12:00"
TICK = [str(BIN / "python3"), "src", "tick", "--now", NOW]
LEFT = ("conf", "data/champion", "data/selection", "data/models", "params.yaml", "dvc.lock")


def killed(project: Project, seconds: float) -> bool:
    """Run a tick and kill it alone after so many seconds, as where memory lacks; return whether it was learning."""
    process = subprocess.Popen(
        TICK, cwd=project.path, env=project.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    learning = (project.path / "tmp/retrain").exists()
    return process.wait() == -signal.SIGKILL and learning


def others(project: Project) -> list[str]:
    """Return the commands of processes that work in the project."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/cwd").startswith(str(project.path)):
                found.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:200])
        except OSError:
            continue
    return found


def test_a_retraining_that_is_killed_is_made_once(project: Project) -> None:
    project.set("retraining", {"window": {"train": 60, "validation": 20, "test": 7}})
    project.set("trigger", {"days": 1, "labels": None, "alerts": [], "bound": None, "cost": False, "rest": 0})
    project.do("python3", "src", "settings")
    project.commit("short windows")
    before, draw, done = project.files(*LEFT), random.Random(5), 0
    for _ in range(KILLS):
        done += killed(project, draw.uniform(2, 5))
    print(f"{done} of {KILLS} killed while they learnt")
    assert done >= KILLS // 2
    end = time.monotonic() + 10
    while left := others(project):
        assert time.monotonic() < end, f"what a killed tick began goes on: {left}"
        time.sleep(0.1)
    said = project.do(*TICK).stdout
    (version,) = [line.split()[1].rstrip(":") for line in said.splitlines() if line.startswith("retrain")]
    manifest = project.read(f"models/{version}/manifest.json")
    assert manifest["version"] == version and manifest["model"] == project.read("data/champion/manifest.json")["model"]
    diary = [json.loads(line) for line in (project.path / "logs/ticks/diary.jsonl").read_text().splitlines()]
    assert [line["version"] for line in diary if line["step"] == "learn"] == [version]
    plans = sorted((project.path / "models/plans").glob("*.json"))
    assert [json.loads(path.read_text())["test"]["challenger"] for path in plans] == [version]
    assert len(project.do("dvc", "exp", "list", "--name-only").stdout.split()) == 1
    assert project.files(*LEFT) == before and not project.do("git", "status", "--short").stdout
    assert f"plan 1 tries {version}" in said and "waits until" in project.do(*TICK).stdout
