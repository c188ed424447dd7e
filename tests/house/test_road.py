"""Who does not use it does not pay for it: the way to the first result holds what the result needs, and no more."""

import subprocess
import sys

from fieldbook.core.repro import instances, road
from fieldbook.stages import ROAD, STAGES

HEAVY = (
    "torch",
    "mlflow",
    "bentoml",
    "matplotlib",
    "duckdb",
    "papermill",
    "jinja2",
    "fairlearn",
    "skl2onnx",
    "sqlalchemy",
)
ON_THE_ROAD = {name for turn in ROAD for chain in turn for name in chain}


def test_no_stage_of_the_road_loads_what_is_heavy_before_it_needs_it() -> None:
    """One process imports them one after the other, the command line first."""
    places = {stage.name: stage.place.partition(":")[0] for stage in STAGES if stage.name in ON_THE_ROAD}
    modules = {"the command line": "fieldbook.cli", **{name: f"fieldbook.{place}" for name, place in places.items()}}
    code = (
        f"import importlib, sys\nfor name, module in {modules!r}.items():\n"
        f"    importlib.import_module(module)\n"
        f"    print(*(f'{{name}}: {{heavy}}' for heavy in {HEAVY!r} if heavy in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_nothing_stands_on_the_road_that_the_bento_and_the_record_do_not_need() -> None:
    """All of the road leads to `bento` and `track`: a study or a page stands beside it."""
    from test_wiring import DVC, PARAMS, graph

    stages = instances(DVC, PARAMS)
    needed, grown = set(), {"bento", "track"}
    while grown:
        needed |= grown
        grown = {other for stage in grown for other in graph()[stage]} - needed
    assert {one for turn in road(ROAD, stages) for chain in turn for one in chain} == needed
