"""Each way of trying a model, from the command that begins it to the tick that acts: the log is the service's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fieldbook.continual.caller import Inside, Stage, inside, wait_for_plan
from fieldbook.experiment.change import history
from fieldbook.experiment.models import put
from fieldbook.features.request import frame_arrays, records
from fieldbook.observe.log import records as logged
from fieldbook.operate import app
from fieldbook.serve.plan import Plan, write_plan
from fieldbook.serve.planted import challenger
from fieldbook.serve.servable import Servable

pytestmark = pytest.mark.slow


@dataclass
class Live:
    """A service in this process, those who ask it, and the commands of those who run it.

    Attributes
    ----------
    asked, acts : requests of one row, and whether the champion acts on them.
    """

    stage: Stage
    caller: Inside
    asked: list[dict[str, Any]]
    acts: np.ndarray
    words: tuple[str, str]
    draw: np.random.Generator = field(default_factory=lambda: np.random.default_rng(3))
    asks: int = 0
    clock: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(hours=2))

    def play(self, requests: int, rows: int = 1, wrong: float = 0.9) -> None:
        """Ask once a second, by a clock of its own, and tell what came of it.

        Parameters
        ----------
        requests, rows : how many, and of how many rows each.
        wrong : share of the outcomes that are as the champion would not have thought.
        """
        for _ in range(requests):
            some = self.draw.integers(len(self.asked), size=rows)
            sent = json.dumps([self.asked[n] for n in some])
            self.asks, self.clock = self.asks + 1, self.clock + timedelta(seconds=1)
            told_at = {"x-time": self.clock.isoformat(), "x-request-id": f"request-{self.asks}"}
            status, body = self.caller.ask("POST", "/predict", sent.encode(), told_at)
            assert status == 200, body
            told = json.loads(body)
            happens = self.acts[some] ^ (self.draw.random(rows) < wrong)
            came = [{"request_id": one["request_id"], "outcome": self.words[int(so)]} for one, so in zip(told, happens)]
            bearer = {"authorization": f"Bearer {self.stage.token}", "x-time": self.clock.isoformat()}
            assert self.caller.ask("POST", "/feedback", json.dumps(came).encode(), bearer)[0] == 202

    def command(self, *words: str) -> str:
        """Run a command; return what it prints. Outcomes are no longer young: it looks three days later."""
        said = self.said(*words)
        wait_for_plan(self.caller, self.stage)
        return said

    def said(self, *words: str) -> str:
        """Run a command, and do not wait until the service follows it."""
        late = f"{datetime.now(UTC) + timedelta(days=3):%Y-%m-%dT%H:%M:%S}"
        place = ["--models", str(self.stage.models)]
        place += ["--now", late, "--logs", str(self.stage.folder)] if words[-1] in ("status", "tick") else []
        done = CliRunner().invoke(app, [*words, *place])
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    def arms(self) -> pd.DataFrame:
        """Return the rows that were answered under a plan."""
        return pd.DataFrame([row for row in logged(self.stage.folder) if row.get("plan")])


@pytest.fixture
def live(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    """Return a service that has answered some hundred requests, in a project whose tests are short."""
    shutil.copytree(project / "data/settings", tmp_path / "data/settings")
    (tmp_path / "conf/deploy").mkdir(parents=True)
    shutil.copy(project / "conf/deploy/runbook.md", tmp_path / "conf/deploy")
    for name, short in (("verdict", {"worthwhile": 0.5}), ("rollout", {"hours": 0})):
        path = tmp_path / f"data/settings/{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | short))
    monkeypatch.chdir(tmp_path)
    sample = pd.read_parquet(project / "data/features/requests.parquet").sample(400, random_state=1)
    own = Servable(project / "data/champion")
    stage, task = Stage(project / "data/champion", tmp_path / "logs"), own.manifest.framing.task
    decided = np.array(own.answer(frame_arrays(sample, own.manifest.request)).columns["decision"])
    put(project / "data/champion", stage.models)
    with inside(stage) as caller:
        one = Live(
            stage,
            caller,
            records(sample, own.manifest.request),
            decided == task.positive,
            (task.negative, task.positive),
        )
        one.play(60, 8)
        one.clock = datetime.now(UTC) + timedelta(minutes=1)  # all that follows is later than the plan
        yield one


def test_shadow(live: Live, project: Path) -> None:
    """Nobody hears the challenger, and its log promotes it."""
    other = challenger(project / "data/champion", live.stage.models, "flipped")
    assert f"shadow of {other}" in live.command("rollout", "start", other, "--way", "shadow")
    live.play(60, 4)
    assert set(live.arms()["model_version"]) == {history(live.stage.models)[0].champion}
    assert "verdict    promote: it saves" in live.command("rollout", "status")
    said = live.command("tick")
    assert f"Plan 2: champion {other}" in said, said
    last = history(live.stage.models)[-1]
    assert (last.champion, last.test, last.who) == (other, None, "tick")


def test_ab(live: Live, project: Path) -> None:
    """Entities keep their arm, and a challenger that costs more is taken back."""
    other = challenger(project / "data/champion", live.stage.models, "flipped")
    live.command("rollout", "start", other, "--way", "ab", "--by", "carrier", "--by", "destination", "--by", "seats")
    live.play(900, wrong=0.0)
    rows = live.arms()
    assert rows.groupby("unit")["arm"].nunique().max() == 1 and rows["unit"].nunique() > 50
    assert "verdict    roll back: it costs" in live.command("rollout", "status")
    said = live.command("tick")
    assert "Plan 2: nothing is tried" in said, said


def test_bandit(live: Live, project: Path) -> None:
    """The better arm gets more, step by step; what each row weighs follows from the share it was dealt by."""
    other = challenger(project / "data/champion", live.stage.models, "flipped")
    live.command("rollout", "start", other, "--way", "bandit")
    live.play(60, wrong=0.7)
    said = live.command("tick")
    plans = history(live.stage.models)
    assert "Plan 2:" in said and plans[-1].test is not None and plans[-1].why.startswith("shares follow"), said
    assert plans[-1].test.shares[other] > 0.6 and plans[-1].salt == plans[0].salt
    live.play(300, 2)
    rows = live.arms()
    mine = rows[rows["plan"] == 2]
    share = mine["arm"].eq(other).groupby(mine["unit"]).first().mean()
    assert abs(share - plans[-1].test.shares[other]) < 0.1
    assert np.allclose(mine[mine["arm"] == other]["arm_propensity"], plans[-1].test.shares[other])
    assert "verdict    promote: it saves" in live.command("rollout", "status")
    assert f"champion {other}" in live.command("tick")


def test_interleaving(live: Live, project: Path) -> None:
    """Both draft the rows that are acted on, and who drafts better is promoted."""
    other = challenger(project / "data/champion", live.stage.models, "flipped")
    live.command("rollout", "start", other, "--way", "interleaving", "--first", "4")
    live.play(120, 8)
    drafted = live.arms().groupby(live.arms()["request_id"].str.partition("/")[0])["arm"]
    counts = drafted.value_counts().unstack()
    assert (counts["baseline"] == 2).all() and (counts[other] == 2).all() and (counts["champion"] == 4).all()
    assert "verdict    promote: it saves" in live.command("rollout", "status")
    assert f"champion {other}" in live.command("tick")


def test_status_tells_that_a_plan_is_not_followed(live: Live) -> None:
    """The service refuses a plan whose model is not there, and its log shows that it goes on as before."""
    before = f"{datetime.now(UTC) - timedelta(seconds=10):%Y-%m-%dT%H:%M:%S}+00:00"
    write_plan(live.stage.models, Plan(number=1, champion="0" * 12, who="anna@desk", when=before, why="by hand"))
    live.play(3)
    assert "answers given since follow no plan; the service says why" in live.said("rollout", "status")
