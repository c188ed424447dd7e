"""The shape of the house: chapters in order, imports that go down only, and nothing too long."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src/fieldbook"
NOTEBOOKS = sorted(
    path for path in (ROOT / "notebooks").rglob("*.ipynb") if not re.search(r"/[._]", str(path.relative_to(ROOT)))
)
MODULE_LINES, FUNCTION_LINES, CELL_LINES = 300, 40, 20  # the longest, the longest, the median


def dotted(path: Path) -> str:
    """Return the name by which a file of the package is imported."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def code_of(notebook: Path, report: bool = True) -> list[str]:
    """Return the code cells of a notebook, with or without those of its report."""
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    tags = [cell["metadata"].get("tags", []) for cell in cells]
    return ["".join(cell["source"]) for cell, own in zip(cells, tags) if report or "report" not in own]


def exported_to(notebook: Path) -> str:
    """Return the module that a notebook exports."""
    (name,) = re.findall(r"(?m)^#\|\s*default_exp\s+(\S+)", "\n".join(code_of(notebook)))
    return f"fieldbook.{name}"


def place_of(notebook: Path) -> tuple[list[str], list[str]]:
    """Return the numbers and the names in the path of a notebook: `05_model/70_train` gives 05, 70 and model, train."""
    words = [
        re.fullmatch(r"(?:(\d\w*)_)?(\w+)", part)
        for part in notebook.relative_to(ROOT / "notebooks").with_suffix("").parts
    ]
    return [word[1] for word in words if word and word[1]], [word[2] for word in words if word]


MODULES = {dotted(path): path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "_modidx.py"}
RANK = {exported_to(notebook): place_of(notebook)[0] for notebook in NOTEBOOKS}


class Import(NamedTuple):
    """A module of the package that another one imports, and in which line."""

    module: str
    line: int


def imports(name: str) -> list[Import]:
    """Return what a module imports of the package, at the top or inside a function."""
    path = MODULES[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    return imported(path.read_text(), package)


def imported(code: str, package: list[str]) -> list[Import]:
    """Return what a piece of code, written in a package, imports of ours, in whichever of four forms.

    The forms: `import fieldbook.x`, `from fieldbook.x import y`, `from .x import y`, and `from . import x` (or from
    `fieldbook`), where x may be a module or a name that the package itself defines.
    """
    result = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            result += [
                Import(alias.name, node.lineno) for alias in node.names if alias.name.split(".")[0] == "fieldbook"
            ]
        if isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *(node.module or "").split(".")]).strip(".")
            if base.split(".")[0] == "fieldbook":
                parts = [f"{base}.{alias.name}" for alias in node.names]
                result += [Import(part if part in MODULES else base, node.lineno) for part in parts]
    return result


def test_all_forms_of_an_import_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The law below would hold of any code whose imports are not seen."""
    file = tmp_path / "train.py"
    file.write_text(
        "import fieldbook.a.b\nfrom fieldbook.a.b import c\nfrom fieldbook.a import b\nfrom ..a.b import c\n"
        "from ..a import b\nfrom .b import c\nfrom . import b\nfrom .. import FieldbookError\nimport numpy\n"
        "def f():\n    from .b import c\n"
    )
    known = {"fieldbook": file, "fieldbook.a.b": file, "fieldbook.model.b": file, "fieldbook.model.train": file}
    monkeypatch.setitem(globals(), "MODULES", known)
    found = [module for module, _ in imports("fieldbook.model.train")]
    assert found == ["fieldbook.a.b"] * 5 + ["fieldbook.model.b"] * 2 + ["fieldbook", "fieldbook.model.b"]


@pytest.mark.parametrize("name", sorted(RANK))
def test_imports_go_down_only(name: str) -> None:
    """Whoever deletes chapters from the end keeps a project that works. Nobody imports the problems' rooms by name."""
    own = RANK[name]
    for module, line in imports(name):
        other = RANK.get(module)
        assert other != [] or own == [], f"{name}, line {line}: imports {module}; only Hydra's _target_ names a problem"
        if other:
            assert own == [] or other < own, f"{name}, line {line}: imports {module}, which comes later"
        if other is None:
            assert module not in ("fieldbook.cli", "fieldbook.__main__"), f"{name}, line {line}: imports {module}"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_examples_know_no_later_chapter(notebook: Path) -> None:
    """You can stop anywhere: an example, too, imports only its own chapter and those above. A report shows them all."""
    own = place_of(notebook)[0][:1]
    for code in code_of(notebook, report=False):
        for module, line in imported(code, []):
            chapter = RANK.get(module, ["00"])[:1]
            wrong = f"line {line} of {code[:60]!r}: imports {module}, of a later chapter"
            assert own == [] or (chapter != [] and chapter <= own), wrong


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_and_its_module_have_one_name(notebook: Path) -> None:
    """Law 1: `05_model/70_train` exports `fieldbook.model.train`."""
    names = place_of(notebook)[1]
    assert exported_to(notebook) == ".".join(["fieldbook", *names])


def test_chapters_and_notebooks_are_numbered() -> None:
    """No number stands twice in a folder, and only the problems' rooms have none."""
    numbers = [(notebook.parent, tuple(place_of(notebook)[0])) for notebook in NOTEBOOKS]
    numbered = [pair for pair in numbers if pair[1]]
    assert len(numbered) == len(set(numbered))
    assert {folder.name for folder, number in numbers if not number} <= {"problems"}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_module_and_no_function_is_long(name: str) -> None:
    """A notebook is one idea. Of a function, the body is counted, without its docstring."""
    text = MODULES[name].read_text()
    assert len(text.splitlines()) <= MODULE_LINES, f"{name}: make two notebooks of it"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            lines = (node.end_lineno or 0) - first.lineno + 1
            if ast.get_docstring(node):
                lines -= (first.end_lineno or 0) - first.lineno + 1
            assert lines <= FUNCTION_LINES, f"{name}, line {node.lineno}: {node.name} has {lines} lines"


def test_an_export_cell_is_short() -> None:
    """A definition, and then a cell that shows it at work."""
    lengths = [len(code.splitlines()) for path in NOTEBOOKS for code in code_of(path) if code.startswith("#| export")]
    assert median(lengths) <= CELL_LINES
