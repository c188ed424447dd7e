"""What is said to people is true: commands, stages and places that a text names are there."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
import typer.main
import yaml

from fieldbook.cli import app
from fieldbook.core.publish import PAGES

ROOT = Path(__file__).parents[2]
MADE = [  # places that neither git nor DVC knows, and who makes them
    "data/measure",  # `make repro` times every model at its end
    "data/bench",  # `make bench`
    "data/site",  # `make site`
    "data/sources",  # whoever has a table
    "conf/problem/orders.yaml",  # `fieldbook adopt` in the README's example
    "src/sbom.json",  # in the Bento
    "src/data/champion/manifest.json",  # in the Bento
    "src/*.egg-info",  # pip
]
Text = tuple[Path, int, str]


def texts(tracked: list[Path]) -> Iterator[Text]:
    """Yield what people may read, with its file and line: prose, comments, help, and the strings of the code."""
    for path in tracked:
        if path.suffix == ".ipynb":
            cells = json.loads(path.read_text())["cells"]
            yield from ((path, n, "".join(cell["source"])) for n, cell in enumerate(cells))
        elif (
            path.suffix in (".py", ".md", ".yaml", ".yml", ".sh", ".toml", ".html", ".js")
            or "." not in path.name
            or path.parent.name == ".ci"
        ):
            yield from ((path, n, line) for n, line in enumerate(path.read_text(errors="replace").splitlines(), 1))


@pytest.fixture(scope="module")
def said(tracked: list[Path]) -> list[Text]:
    """Return all that people may read, but for what locks and this file say."""
    mine = [path for path in tracked if not path.name.endswith(".lock") and path != Path(__file__)]
    return list(texts(mine))


def named(said: list[Text], pattern: str) -> Iterator[tuple[str, str]]:
    """Yield what a pattern finds, and where."""
    for path, line, text in said:
        for word in re.findall(pattern, text):
            yield word, f"{path.relative_to(ROOT)}, {line}: {text.strip()[:200]}"


def none(wrong: list[str]) -> None:
    """Fail with all that is wrong, a line each."""
    assert not wrong, "\n".join(["", *sorted(set(wrong))])


def test_every_make_target_there_is(said: list[Text]) -> None:
    """In backticks, in a message or on a line of its own in a block of commands."""
    targets = set(re.findall(r"(?m)^([a-z][\w-]*):", (ROOT / "Makefile").read_text()))
    calls = r"(?:`|^\s*|\brun: )make (?:[A-Z]+=\S+ )*([a-z][\w-]*)(?=[`\s\\\"']*(?:[`#A-Z\"']|$| then| and))"
    seen = list(named(said, calls))
    assert {"repro", "test"} <= {target for target, _ in seen}
    none([where for target, where in seen if target not in targets])


def test_every_subcommand_there_is(said: list[Text]) -> None:
    """`fieldbook X` in backticks or after a folder, and `python3 src X`."""
    commands = set(getattr(typer.main.get_command(app), "commands", {}))
    seen = list(named(said, r"(?:`|bin/|\$\(BIN\)/)fieldbook ([a-z][\w-]*)"))
    seen += list(named(said, r"python3? src ([a-z][\w-]*)"))
    assert {"settings", "lineage", "adopt"} <= {command for command, _ in seen}
    none([where for command, where in seen if command not in commands])


def test_every_stage_there_is(said: list[Text]) -> None:
    """`dvc repro X` names a stage, or one for a model."""
    stages = set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    for file in ROOT.glob("*/dvc.yaml"):
        stages |= set(yaml.safe_load(file.read_text())["stages"])
    seen = list(named(said, r"dvc repro (?:-\S+ )*([a-z]\w+)"))
    none([where for stage, where in seen if stage not in stages])


PLACE = r"(?<![\w./~-])((?:conf|data|src|tests|notebooks|\.ci)/(?:[\w./*-]|\{[^}]*\})*(?:[\w*]|\{[^}]*\}))"


def there(place: str, outs: set[str]) -> bool:
    """Return whether a place is in the tree, is made by a stage or by hand, or is the name of a page.

    `{...}`, `*` and CAPITALS stand for a name.
    """
    pattern = re.sub(r"\{[^}]*\}|\b[A-Z]{2,}\b(?!\.md)|\*+", "*", place).rstrip("/.")
    if place in PAGES or any(ROOT.glob(pattern)):
        return True
    one_in_the_other = lambda out: all(map(fnmatch, out.split("/"), pattern.split("/")))
    return any(map(one_in_the_other, {*outs, *MADE}))


def strings(path: Path) -> list[Text]:
    """Return the strings of a module, docstrings and the parts of f-strings among them, and its comments."""
    text = path.read_text()
    nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    comments = [
        (path, n, line)
        for n, line in enumerate(text.splitlines(), 1)
        if line.lstrip().startswith("# ") and "# %%" not in line
    ]
    return [(path, node.lineno, node.value) for node in nodes] + comments


def test_every_place_there_is(tracked: list[Path]) -> None:
    """In code, settings, prose: a path is that of a file or folder, or of what the pipeline makes."""
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        outs = {out.def_path for stage in repo.index.stages for out in stage.outs}
    code = [
        path for path in tracked if ROOT / "src" in path.parents and path.suffix == ".py" and path.name != "_modidx.py"
    ]
    prose = [
        path
        for path in tracked
        if path.suffix in (".md", ".yaml", ".yml") or path.name == "Makefile" or path.parent.name == ".ci"
    ]
    prose = [path for path in prose if not {"data", "grafana"} & set(path.relative_to(ROOT).parts)]
    said = [text for path in code for text in strings(path)] + list(texts(prose))
    for notebook in tracked:
        if notebook.suffix == ".ipynb":
            cells = json.loads(notebook.read_text())["cells"]
            said += [(notebook, n, "".join(c["source"])) for n, c in enumerate(cells) if c["cell_type"] == "markdown"]
    seen = list(named(said, PLACE))
    assert len(seen) > 100
    none([f"{place}: {where}" for place, where in seen if not there(place, outs)])


def test_the_problem_has_one_room(tracked: list[Path]) -> None:
    """Law 4: its word stands in conf/problem/, notebooks/problems/ and tests/problems/; and where one is chosen."""
    rooms = ("conf/problem/", "notebooks/problems/", "src/fieldbook/problems/", "tests/problems/", "data/")
    rooms += ("README.md", "requirements.lock", "dvc.lock", "params.yaml", "pyproject.toml")
    word = re.compile(r"\bflights?\b", re.I)
    chosen = re.compile(r"(?m)^  - problem: .*$|^ *\"problems/.*$|\bproblem=\w+")
    seen = []
    for path in tracked:
        name = str(path.relative_to(ROOT))
        if not name.startswith(rooms) and path != Path(__file__) and path.name != "_modidx.py":
            seen += [
                f"{name}: {line.strip()[:120]}"
                for line in chosen.sub("", path.read_text(errors="replace")).splitlines()
                if word.search(line)
            ]
    none(seen)
