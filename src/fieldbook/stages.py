"""One table of all stages of dvc.yaml, and one of all sections of conf/: what they are called, and where they stand.

Places are written `MODULE:NAME`, below this package, and imported when they are needed: the tables cost nothing.
"""

import importlib
from datetime import date
from typing import Any, NamedTuple


class Stage(NamedTuple):
    """A stage: `python3 src NAME` calls the function at `place`, once for each `each` if that is given."""

    name: str
    place: str
    summary: str
    each: str | None = None


STAGES = (
    Stage("scope", "scope:main", "conf/ -> params.yaml, checked"),
    Stage("ingest", "ingest:main", "sources -> Parquet, through the contracts"),
    Stage("label", "label:main", "one row per prediction"),
    Stage("split", "split:main", "training, validation, test, production"),
    Stage("features", "features:main", "what the models see"),
    Stage("quality", "quality:main", "how late labels come, and what labelling functions are worth"),
    Stage("missing", "missing:main", "why values are missing"),
    Stage("leakage", "leakage:main", "nothing gives the target away"),
    Stage("train", "train:main", "fit a model of conf/model/", "MODEL"),
    Stage("evaluate", "evaluate:main", "its figures on validation, its graph, its checks", "MODEL"),
    Stage("diagnose", "diagnose:main", "slices, fairness, behaviour, explanations", "MODEL"),
    Stage("select", "select:main", "the champion, and why"),
    Stage("track", "track:main", "record the models in MLflow"),
    Stage("backtest", "backtest:main", "the champion's recipe over the year"),
    Stage("companion", "companion:main", "other objectives beside the one that is asked"),
    Stage("audit", "audit:main", "what each feature is worth"),
    Stage("package", "package:main", "champion -> ONNX and manifest"),
    Stage("bento", "bento:main", "champion and service -> Bento"),
    Stage("index", "index:main", "the page that leads through all pages"),
)

# What each section of conf/ must be: the place of its type, beside the code that reads it, or a plain type.
SECTIONS: dict[str, Any] = {
    "seed": int,
    "notebook": str,  # the problem's own, in notebooks/problems/, whose page is published with the others
    "problem": dict[str, Any],  # the keys below it belong to the class that `_target_` names
    "scope": "scope:Scope",
    "task": "scope:AnyFraming",
    "heuristic": "scope:Heuristic",
    "ingest": "scope:Ingest",
    "split": dict[str, date],
    "features": "scope:Features",
    "leakage": "scope:Leakage",
    "missing": "scope:Missing",
    "label": "scope:Label",
    "models": list[str],
    "model": dict[str, dict[str, Any]],  # likewise
    "sample": "scope:Sample",
    "evaluate": "scope:Evaluate",
    "checks": "scope:Checks",
    "diagnose": "scope:Diagnose",
    "select": "scope:Select",
    "combine": "scope:Combine",
    "companions": list[str],
    "audit": "scope:Audit",
    "tune": "scope:Tune",
    "package": "scope:Package",
    "measure": "scope:Measure",
}
ROWS = "scope:Rows"  # what a file of conf/model/ says under `rows`


def at(place: str) -> Any:
    """Import and return what stands at `MODULE:NAME` of this package."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"fieldbook.{module}"), name)
