"""`fieldbook tune`, killed without warning: what it had is kept, and it ends where it would have ended."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import yaml

from fieldbook.scope.settings import compose

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")]
ROOT = Path(__file__).parents[2]
TRIALS = 30
LINE = re.compile(r"^ +\d+ of 30  trial \d+: ")


class Sweep:
    """A project with few rows and a linear model far from its best penalty; `fieldbook tune` runs in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for folder in ("src", "conf"):
            shutil.copytree(ROOT / folder, path / folder, ignore=shutil.ignore_patterns("__pycache__"))
        (path / "data/features").mkdir(parents=True)
        pd.read_parquet(ROOT / "data/features/features.parquet")[::20].to_parquet(
            path / "data/features/features.parquet"
        )
        self.edit("conf/evaluate.yaml", r"evaluate:\n  replicates: \d+", "evaluate:\n  replicates: 20")
        self.edit("conf/model/logistic.yaml", r" C: [\d.]+", " C: 0.00002")
        (path / "conf/tune/logistic.yaml").write_text("estimator.C: {low: 0.00001, high: 10, log: true}\n")
        env = os.environ | {"PYTHONPATH": str(path / "src")}
        subprocess.run([sys.executable, "src", "settings"], cwd=path, env=env, check=True)

    def edit(self, file: str, pattern: str, new: str) -> None:
        text, times = re.subn(pattern, new, (self.path / file).read_text())
        assert times == 1, file
        (self.path / file).write_text(text)

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Start the command as the leader of a process group of its own."""
        command = [sys.executable, "src", "tune", "logistic", f"--trials={TRIALS}", *options]
        env = os.environ | {"PYTHONPATH": str(self.path / "src"), "MLFLOW_DISABLE_TELEMETRY": "true"}
        return subprocess.Popen(
            command, cwd=self.path, env=env, start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def finish(self, *options: str) -> str:
        """Run the command to its end; return what it said."""
        out, err = (process := self.start(*options)).communicate(timeout=200)
        assert process.returncode == 0, out + err
        return out

    def kill_after(self, trials: int, *options: str) -> None:
        """Start the command, and kill it and its workers as soon as so many trials have ended."""
        process = self.start(*options)
        try:
            ended = 0
            while ended < trials:
                line = process.stdout.readline()
                assert line, process.stderr.read()
                ended += bool(LINE.match(line))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """Return the trials of the one study there is."""
        (store,) = (self.path / "tmp/tune").glob("*.db")
        storage = optuna.storages.RDBStorage(f"sqlite:///{store}")
        try:
            return optuna.load_study(study_name=store.stem.partition("-")[2], storage=storage).get_trials()
        finally:
            storage.remove_session()

    def runs(self) -> list[Any]:
        """Return the runs of MLflow's record."""
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{self.path / 'mlflow.db'}")
        return client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=1000)


@pytest.fixture(scope="module")
def killed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Run a sweep of 30 trials with two processes, killed twice."""
    sweep = Sweep(tmp_path_factory.mktemp("killed") / "project")
    sweep.kill_after(8, "--jobs=2")
    sweep.kill_after(9, "--jobs=2")
    said = sweep.finish("--jobs=2")
    before = int(re.search(r"30 trials, (\d+) of them done before", said)[1])
    assert 17 <= before < TRIALS, said
    assert len([line for line in said.splitlines() if LINE.match(line)]) == TRIALS - before, "some were done again"
    return sweep


def test_every_trial_is_done_once(killed: Sweep) -> None:
    trials = killed.trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * TRIALS
    assert len({str(trial.params) for trial in trials}) == TRIALS


def test_every_trial_has_one_run(killed: Sweep) -> None:
    runs, trials = killed.runs(), killed.trials()
    assert sorted(int(run.data.tags["trial"]) for run in runs) == list(range(TRIALS))
    for run in runs:
        trial = trials[int(run.data.tags["trial"])]
        assert run.info.status == "FINISHED" and list(run.data.metrics.values()) == [trial.value]
        assert run.data.params == {path: str(value) for path, value in trial.params.items()}


def test_the_best_is_a_model_file(killed: Sweep) -> None:
    best = min(killed.trials(), key=lambda trial: trial.value)
    composed = yaml.safe_load(compose(killed.path / "conf", ["model=[logistic,logistic_tuned]"]))
    assert composed["model"]["logistic_tuned"]["estimator"]["C"] == best.params["estimator.C"] > 0.00002
    assert re.search(
        r"\(95% interval .*\):\n?#? ?clearly better", (killed.path / "conf/model/logistic_tuned.yaml").read_text()
    )


def test_a_sweep_never_killed_ends_in_the_same_place(killed: Sweep, tmp_path: Path) -> None:
    """One process, no kill: the same trials, the same values, the same file to the byte."""
    whole = Sweep(tmp_path / "project")
    whole.finish("--jobs=1")
    assert [(t.params, t.value) for t in whole.trials()] == [(t.params, t.value) for t in killed.trials()]
    one, two = ((sweep.path / "conf/model/logistic_tuned.yaml").read_bytes() for sweep in (whole, killed))
    assert one == two


def test_what_the_record_lacks_is_made_good(killed: Sweep) -> None:
    """A kill between the two stores leaves a trial without a run, or a run without its figures."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{killed.path / 'mlflow.db'}")
    by_trial = {run.data.tags["trial"]: run for run in killed.runs()}
    client.delete_run(by_trial["3"].info.run_id)
    lost = client.create_run(
        by_trial["3"].info.experiment_id, tags={k: by_trial["3"].data.tags[k] for k in ("study", "trial", "model")}
    )
    client.delete_run(by_trial["7"].info.run_id)
    killed.finish("--jobs=1")
    test_every_trial_has_one_run(killed)
    assert client.get_run(lost.info.run_id).info.status == "FINISHED"


def test_a_file_of_somebody_else_is_left_alone(killed: Sweep) -> None:
    mine = killed.path / "conf/model/mine.yaml"
    mine.write_text("mine:\n  _target_: fieldbook.model.pipeline.tabular\n")
    process = killed.start("--name=mine")
    _, told = process.communicate(timeout=200)
    assert process.returncode == 1 and told.strip().splitlines()[-1].startswith(
        "fieldbook: conf/model/mine.yaml is there"
    )
    assert mine.read_text().startswith("mine:\n  _target_: fieldbook.model.pipeline.tabular\n")
    killed.finish("--name=mine", "--force")
    assert mine.read_text().startswith("# logistic with the best settings of 30 trials")
