"""Any model could become champion: each graph says what its model says, and is the same bytes anywhere."""

import os
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest

from fieldbook.features.features import read_features
from fieldbook.model.graph import to_graph
from fieldbook.model.parity import parity
from fieldbook.scope.framing import Framing

MODELS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf/model").glob("*.yaml"))


@pytest.mark.parametrize("name", MODELS)
def test_graph_says_what_the_model_says(project: Path, task: Framing, name: str) -> None:
    """Any model could become champion: each graph is within 1e-5 of its model on 10,000 rows, strange ones too."""
    table, numeric, categorical = read_features("validation", project / "data/features")
    rows = table.iloc[np.linspace(0, len(table) - 1, 10_000).astype(int)].reset_index(drop=True)
    rows.loc[::100, categorical] = "never seen"
    rows.loc[50::100, numeric] = np.float32("nan")
    model = joblib.load(project / "data/models" / name / "model.joblib")
    graph = to_graph(model, len(numeric), len(categorical)).SerializeToString()
    assert parity(model, graph, rows, numeric, categorical, task, 1e-5) < 1e-5


@pytest.mark.slow
def test_threads_and_hash_seeds_leave_no_trace(project: Path, tmp_path: Path) -> None:
    """Fitted and exported with one thread and with two, under other hash seeds, every model is the same file."""
    program = (
        "import hashlib, joblib, sys; from pathlib import Path\n"
        "from fieldbook.model.build import build_model; from fieldbook.model.train import fit\n"
        "from fieldbook.features.features import read_features\n"
        "from fieldbook.model.graph import to_graph\n"
        "from fieldbook.scope.framings import AnyFraming; from fieldbook.core.section import section\n"
        "table, numeric, categorical = read_features('validation')\n"
        "table, target = table.head(6000), Path(sys.argv[1])\n"
        "task = section('task', AnyFraming)\n"
        "for name in section('models', list[str]):\n"
        "    settings = section(f'model/{name}', dict)\n"
        "    model = build_model(name, settings, numeric, categorical, task)\n"
        "    model = fit(name, model, table, numeric + categorical, task)\n"
        "    joblib.dump(model, target)\n"
        "    graph = to_graph(model, len(numeric), len(categorical)).SerializeToString()\n"
        "    print(name, hashlib.md5(target.read_bytes()).hexdigest(), hashlib.md5(graph).hexdigest())\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "model")]
    one, two = (
        subprocess.run(
            command,
            cwd=project,
            env=os.environ | {"OMP_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for threads in ("1", "2")
    )
    assert len(one) == len(MODELS) and one == two
