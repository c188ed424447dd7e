"""What dvc.yaml comes to, and the settings that each stage reads, by its syntax tree; `python tests/house/wiring.py` prints them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

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


def expand(dvc: dict[str, Any], variables: dict[str, Any]) -> list[str]:
    """Return the names of all stages that dvc.yaml comes to, as dvc.lock writes them."""
    names = []
    for name, stage in dvc["stages"].items():
        if "matrix" in stage:
            rows: list[tuple[str, ...]] = [()]
            for values in stage["matrix"].values():
                rows = [(*row, str(value)) for row in rows for value in _resolve(values, variables)]
            names += [f"{name}@{'-'.join(row)}" for row in rows]
        elif "foreach" in stage:
            each = _resolve(stage["foreach"], variables)
            names += [f"{name}@{key}" for key in each]
        else:
            names.append(name)
    return names


def _resolve(value: Any, variables: dict[str, Any]) -> Any:
    """Return a list or a mapping as dvc.yaml gives it, or as `${...}` names it in params.yaml."""
    found = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
    if not found:
        return value
    for key in found[1].split("."):
        variables = variables[key]
    return variables


def main() -> None:
    """Print for each stage of dvc.yaml which settings it depends on."""
    wiring = Wiring(Path(__file__).parents[2])
    for stage in STAGES:
        files = settings_of(wiring, stage.place, bool(stage.each))
        print(f"{stage.name}:", *(f"  - {file}" for file in sorted(files)), sep="\n")


if __name__ == "__main__":
    sys.path.insert(0, "src")
    main()
