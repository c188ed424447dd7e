"""One table of all stages of dvc.yaml, and one of all sections of conf/: what they are called, and where they stand.

Places are written `MODULE:NAME`, below this package, and imported when they are needed: the tables cost nothing.
"""

import importlib
from typing import Any, Literal, NamedTuple


class Stage(NamedTuple):
    """A stage: `python3 src NAME` calls the function at `place`, once for each `each` if that is given."""

    name: str
    place: str
    summary: str
    each: str | None = None
    seconds: float = 3  # once on two cores, on the example's data; only for the forecast of how long a run takes


STAGES = (
    Stage("settings", "scope.settings:main", "conf/ -> params.yaml, checked", seconds=1),
    Stage("code", "core.code:main", "what code each stage runs", seconds=2),
    Stage("ingest", "data.ingest:main", "sources -> Parquet, through the contracts", seconds=2),
    Stage("label", "data.label:main", "one row per prediction", seconds=2),
    Stage("split", "data.split:main", "training, validation, test, production", seconds=1),
    Stage("features", "features.features:main", "what the models see", seconds=5),
    Stage("quality", "examine.quality:main", "how late labels come, and what labelling functions are worth", seconds=4),
    Stage("missing", "examine.missing:main", "why values are missing", seconds=40),
    Stage("leakage", "examine.leakage:main", "nothing gives the target away", seconds=14),
    Stage("train", "model.train:main", "fit a model of conf/model/", "MODEL", seconds=6),
    Stage("evaluate", "evaluate.evaluate:main", "its figures on validation, its graph, its checks", "MODEL", seconds=7),
    Stage("diagnose", "evaluate.diagnose:main", "slices, fairness, behaviour, explanations", "MODEL", seconds=11),
    Stage("select", "select.select:main", "the champion, and why"),
    Stage("backtest", "select.backtest:main", "the champion's recipe over the year", seconds=66),
    Stage("companion", "select.companion:main", "other objectives beside the one that is asked", seconds=9),
    Stage("audit", "select.audit:main", "what each feature is worth", seconds=86),
    Stage("package", "package.package:main", "champion -> ONNX and manifest"),
    Stage("track", "package.track:main", "record the models in MLflow", seconds=4),
    Stage("bento", "package.bento:main", "champion and service -> Bento", seconds=7),
    Stage("index", "package.index:main", "the page that leads through all pages", seconds=2),
)

# Models that take longer than others begin first, until a run has told how long each takes.
SECONDS = {"train@network": 15, "train@boosting": 12}

# The main road, in turns: a stage needs only those before it in its chain and those of earlier turns. Chains of one
# turn run side by side, one for each model where the stages are several. All other stages are byways.
ROAD = (
    (("settings", "code", "ingest", "label", "split", "features"),),
    (("leakage",), ("train", "evaluate")),
    (("select", "companion", "package"),),
    (("bento",), ("track",)),
)

# What each section of conf/ must be: the place of its type, beside the code that reads it, or a plain type.
SECTIONS: dict[str, Any] = {
    "seed": int,
    "name": str,  # the problem's, for people: on pages, in MLflow, in the API
    "notebook": str,  # the problem's own, in notebooks/problems/, whose page is published with the others
    "problem": dict[str, Any],  # the keys below it belong to the class that `_target_` names
    "scope": "scope.promise:Scope",
    "task": "scope.framings:AnyFraming",
    "heuristic": "scope.promise:Heuristic",
    "ingest": "data.ingest:Ingest",
    "split": "data.division:Split",
    "features": "features.features:Features",
    "leakage": "examine.finding:Leakage",
    "missing": "examine.missing:Missing",
    "label": "examine.quality:Label",
    "models": list[str],
    "model": dict[str, dict[str, Any]],  # likewise
    "sample": "model.sample:Sample",
    "parity": "model.parity:Parity",
    "evaluate": "core.interval:Evaluate",
    "checks": "evaluate.checks:Checks",
    "diagnose": "evaluate.diagnose:Diagnose",
    "select": "select.select:Select",
    "retrained": bool,
    "combine": "scope.promise:Combine",
    "companions": list[str],
    "backtest": "select.backtest:Backtest",
    "audit": "select.audit:Audit",
    "tune": "select.tune:Tune",
    "package": "package.package:Package",
    "measure": "measure.latency:Measure",
    "monitor": "monitor.monitor:Monitor",
    "rules": "monitor.rule:Rules",
    "rollout": "experiment.rollout:Rollout",
    "verdict": "experiment.horizon:Design",
    "retraining": "continual.window:Retraining",
    "trigger": "continual.trigger:Trigger",
    "policies": "continual.policy:Policies",
    "replay": "continual.replay:Replay",
}
# What a file of conf/model/ may say beside what builds the model.
BESIDE: dict[str, Any] = {
    "rows": "model.balance:Rows",
    "small": "model.small:Smalls",
    "regressor": str | dict[str, Any],
    "interpretability": Literal[1, 2, 3, 4, 5],
}


def at(place: str) -> Any:
    """Import and return what stands at `MODULE:NAME` of this package."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"fieldbook.{module}"), name)
