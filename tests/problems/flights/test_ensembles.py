"""Ensembles need no code of their own: they are files for conf/model/ like any other."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from fieldbook.core.section import section
from fieldbook.features.features import read_features
from fieldbook.model.build import build_model
from fieldbook.model.graph import to_graph
from fieldbook.model.parity import parity
from fieldbook.model.train import fit
from fieldbook.scope.framings import AnyFraming

FILES = """
bagged:
  _target_: fieldbook.model.pipeline.tabular
  categories: ordinal
  estimator:
    _target_: sklearn.ensemble.BaggingClassifier
    n_estimators: 3
    max_samples: 0.5
    n_jobs: 2
    random_state: 1
    estimator: {_target_: sklearn.ensemble.HistGradientBoostingClassifier, max_iter: 10, random_state: 1}
stacked:
  _target_: fieldbook.model.pipeline.tabular
  numbers: fill              # not scale: trees and their graph would round a scaled number differently
  categories: onehot
  estimator:
    _target_: fieldbook.model.stack.Stack
    share: 0.75
    estimators:
      - [trees, {_target_: sklearn.ensemble.HistGradientBoostingClassifier, max_iter: 10, random_state: 1}]
      - - line
        - _target_: sklearn.pipeline.make_pipeline
          _args_:
            - _target_: sklearn.preprocessing.StandardScaler
            - {_target_: sklearn.linear_model.LogisticRegression, C: 0.1, max_iter: 300}
    final_estimator: {_target_: sklearn.linear_model.LogisticRegression}
"""


@pytest.mark.parametrize("name", yaml.safe_load(FILES))
def test_graph_says_what_the_ensemble_says(project: Path, name: str) -> None:
    """Within 1e-5 on 10,000 rows, with categories never seen and with missing numbers."""
    table, *features = read_features("validation", project / "data/features")
    names = sum(features, [])
    task = section("task", AnyFraming, project / "data/settings")
    model = build_model(name, yaml.safe_load(FILES)[name], *features, task)
    model = fit(name, model, table.head(8_000), names, task)
    rows = table.iloc[np.linspace(0, len(table) - 1, 10_000).astype(int)].reset_index(drop=True)
    rows.loc[::100, features[1]] = "never seen"
    rows.loc[50::100, features[0]] = np.float32("nan")
    exported = to_graph(model, *map(len, features)).SerializeToString()
    assert parity(model, exported, rows, *features, task, 1e-5) < 1e-5
    later = table.tail(8_000)
    later = later[later["label"].notna()]
    probability = model.predict_proba(later[names])[:, 1]
    assert probability[later["label"] == 1].mean() > probability[later["label"] == 0].mean() + 0.05, "it has learnt"


@pytest.mark.slow
def test_threads_leave_no_trace_in_an_ensemble(project: Path, tmp_path: Path) -> None:
    """Fitted with one thread and with two, each is the same file, and so is its graph."""
    program = (
        "import hashlib, joblib, sys, yaml\nfrom fieldbook.model.graph import to_graph\n"
        "from fieldbook.model.build import build_model; from fieldbook.model.train import fit\n"
        "from fieldbook.features.features import read_features\n"
        "from fieldbook.scope.framings import AnyFraming; from fieldbook.core.section import section\n"
        "task = section('task', AnyFraming)\ntable, *features = read_features('validation')\n"
        "for name, settings in yaml.safe_load(sys.argv[2]).items():\n"
        "    model = build_model(name, settings, *features, task)\n"
        "    model = fit(name, model, table.head(2000), sum(features, []), task)\n"
        "    joblib.dump(model, sys.argv[1])\n"
        "    graph = to_graph(model, *map(len, features)).SerializeToString()\n"
        "    print(name, hashlib.md5(open(sys.argv[1], 'rb').read()).hexdigest(), hashlib.md5(graph).hexdigest())\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "model"), FILES]
    one, two = (
        subprocess.run(
            command,
            cwd=project,
            env=os.environ | {"OMP_NUM_THREADS": threads, "LOKY_MAX_CPU_COUNT": threads, "PYTHONHASHSEED": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for threads in ("1", "2")
    )
    assert len(one) == 2 and one == two
