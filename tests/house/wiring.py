"""What dvc.yaml comes to, and which settings each stage reads, by its syntax tree.

`python tests/house/wiring.py` prints the settings.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fieldbook.core.code import Wiring
from fieldbook.stages import STAGES


def settings_of(wiring: Wiring, place: str, each: bool) -> set[str]:
    """Return the files of settings that a stage reads.

    Parameters
    ----------
    wiring : of the project.
    place : of the stage's function, as in the table of stages: `MODULE:NAME`, below the package.
    each : whether the stage runs once a model.
    """
    return {f"data/settings/{_file(name, each)}" for name in wiring.sections(f"fieldbook.{place}")}


def _file(name: str, each: bool) -> str:
    """Return the file of a section, or the folder where its name is known only at run time."""
    start, star, rest = name.partition("*")
    if star and each and start == "model/":
        return f"{start}${{item.model}}{rest}.json"
    return start.rstrip("/") if star else f"{name}.json"


def main() -> None:
    """Print for each stage of dvc.yaml which settings it depends on."""
    wiring = Wiring(Path(__file__).parents[2])
    for stage in STAGES:
        files = settings_of(wiring, stage.place, bool(stage.each))
        print(f"{stage.name}:", *(f"  - {file}" for file in sorted(files)), sep="\n")


if __name__ == "__main__":
    sys.path.insert(0, "src")
    main()
