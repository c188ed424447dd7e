"""Run the notebooks' own tests under pytest: one test for each cell that asserts something.

Cells marked `#| export` are not run; the module they were exported to stands in for them, so that what is tested (and
measured by coverage) is the code that ships. Cells tagged `report` need a pipeline's outputs and belong to papermill.
"""

import ast
import importlib
import json
import linecache
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).parent
ROOT = NOTEBOOKS.parent


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect notebooks, but neither checkpoints nor folders that begin with `_` or a dot."""
    inside = NOTEBOOKS in file_path.parents
    if (
        not inside
        or file_path.suffix != ".ipynb"
        or any(part[0] in "._" for part in file_path.relative_to(NOTEBOOKS).parts)
    ):
        return None
    return Notebook.from_parent(parent, path=file_path)


class Notebook(pytest.File):
    """A notebook; its cells share one namespace, and each runs at most once, in order, when a test needs it."""

    def collect(self) -> Iterator["Cell"]:
        """Yield a test for each assert cell, named by the cell's id."""
        notebook = json.loads(self.path.read_text())
        source = {cell["id"]: "".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"}
        tagged = {cell["id"] for cell in notebook["cells"] if "report" in cell["metadata"].get("tags", [])}
        directives = {name: set(re.findall(r"(?m)^#\|\s*(\S+)", code)) for name, code in source.items()}
        self.module_name = _module_name(source.values(), self.path)
        skipped = {
            name
            for name in source
            if name in tagged or directives[name] & {"export", "exporti", "default_exp", "eval:"}
        }
        self.cells = {name: code for name, code in source.items() if name not in skipped}
        self.outcome: dict[str, BaseException | None] = {}
        for name, code in self.cells.items():
            if any(_asserts(node) for node in ast.walk(ast.parse(code))):
                yield Cell.from_parent(self, name=name)

    def run_until(self, last: str) -> None:
        """Run the cells up to and including `last` that have not run yet; raise what `last` raised."""
        before, here = os.getcwd(), list(self.cells).index(last)
        os.chdir(self.path.parent)
        try:
            for name in list(self.cells)[: here + 1]:
                if name not in self.outcome:
                    self.outcome[name] = self._run(name)
        finally:
            os.chdir(before)
        setup = [name for name in list(self.cells)[:here] if self.outcome[name] and not self._asserts(name)]
        for name in [*setup, last]:
            if self.outcome[name] is not None:
                raise self.outcome[name]

    def _asserts(self, name: str) -> bool:
        return any(isinstance(item, Cell) and item.name == name for item in self.session.items)

    def _run(self, name: str) -> BaseException | None:
        try:
            exec(compile(self.cells[name], self._file(name), "exec"), self.namespace)
        except Exception as error:
            return error
        return None

    def _file(self, name: str) -> str:
        title = f"{self.path.relative_to(ROOT)}::{name}"
        linecache.cache[title] = (len(self.cells[name]), None, self.cells[name].splitlines(keepends=True), title)
        return title

    @property
    def namespace(self) -> dict[str, Any]:
        """The names of the exported module, and those that cells have added."""
        if not hasattr(self, "_namespace"):
            module: ModuleType = importlib.import_module(self.module_name)
            self._namespace = dict(vars(module))
        return self._namespace


class Cell(pytest.Item):
    """One cell with an assert."""

    parent: Notebook

    def runtest(self) -> None:
        """Run the cells before it, as far as they have not run, and then the cell."""
        self.parent.run_until(self.name)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        """Show the lines of the cell, and where in it the error came up."""
        frames = [entry for entry in excinfo.traceback if "::" in str(entry.path)]
        line = frames[-1].lineno + 1 if frames else 0
        code = self.parent.cells[str(frames[-1].path).rpartition("::")[2] if frames else self.name].splitlines()
        shown = "\n".join(f"{'>' if number == line else ' '} {text}" for number, text in enumerate(code, 1))
        return f"{shown}\n\n{excinfo.typename}: {excinfo.value}\n\n{excinfo.getrepr(style='short')}"

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return where the cell is."""
        return self.path, None, f"{self.path.relative_to(ROOT)}::{self.name}"


def _asserts(node: ast.AST) -> bool:
    """Return whether this is an assert, or a call of `refuses`, which is one."""
    return isinstance(node, ast.Assert) or (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "refuses"
    )


def _module_name(cells: Any, path: Path) -> str:
    found = next((match for code in cells if (match := re.search(r"(?m)^#\|\s*default_exp\s+(\S+)", code))), None)
    if found is None:
        raise pytest.UsageError(f"{path}: no cell says `#| default_exp MODULE`")
    return f"fieldbook.{found.group(1)}"
