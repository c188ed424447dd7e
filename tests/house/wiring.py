"""What the code and the settings of each stage are, by its syntax tree; `python tests/house/wiring.py` prints it.

A stage is one function of one module. Its code is that module and what it imports, in any form and at any depth; its
settings are the sections that the function asks for by `section(...)`, itself or through what it calls. What is
imported by name only at run time is added: classes that `_target_` names in the settings a stage reads, those of the
models where one is unpickled, and the service where it is packed.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

# They name and call stages, and compute nothing that a stage leaves.
BARE = {"fieldbook", "fieldbook.__main__", "fieldbook.cli", "fieldbook.stages", "fieldbook._modidx"}


@dataclass
class Module:
    """A module of the package: its name, file, and syntax tree without what only type checkers see."""

    name: str
    path: Path

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return _Runs().visit(ast.parse(self.path.read_text()))

    @cached_property
    def package(self) -> str:
        """The package that a relative import starts from."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]

    @cached_property
    def definitions(self) -> dict[str, ast.AST]:
        """What the module defines at its top level, by name."""
        found: dict[str, ast.AST] = {}
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found[node.name] = node
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {
                    name.id: node for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)
                }
        return found


class _Runs(ast.NodeTransformer):
    """Leave out `if TYPE_CHECKING:`, which never runs."""

    def visit_If(self, node: ast.If) -> Any:
        self.generic_visit(node)
        return node.orelse or None if ast.unparse(node.test).endswith("TYPE_CHECKING") else node


@dataclass
class Wiring:
    """The code of a project.

    Attributes
    ----------
    root : its folder.
    modules : those of the package, by dotted name.
    """

    root: Path
    modules: dict[str, Module] = field(init=False)
    _imports: dict[str, list[tuple[str, str, str]]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        source = self.root / "src"
        self.modules = {}
        for path in sorted((source / "fieldbook").rglob("*.py")):
            parts = path.relative_to(source).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            self.modules[name] = Module(name, path)

    def imports(self, name: str) -> list[tuple[str, str, str]]:
        """Return what a module imports of the package: local name, module, and name in it or nothing.

        All forms count: `import a.b`, `import a.b as c`, `from a.b import c` and `from ..b import c`, where what is
        imported may be a module or stand in one.
        """
        if name not in self._imports:
            self._imports[name] = list(self._imported(self.modules[name]))
        return self._imports[name]

    def _imported(self, module: Module) -> Iterator[tuple[str, str, str]]:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name in self.modules:
                        yield alias.asname or alias.name, alias.name, ""
            elif isinstance(node, ast.ImportFrom):
                base = _absolute(node, module.package)
                for alias in node.names:
                    whole = f"{base}.{alias.name}"
                    if whole in self.modules:
                        yield alias.asname or alias.name, whole, ""
                    elif base in self.modules:
                        yield alias.asname or alias.name, base, alias.name

    def closure(self, names: set[str]) -> set[str]:
        """Return the modules and all that they import, at any depth, without those that are bare or only packages."""
        seen, waiting = set(), set(names)
        while waiting:
            name = waiting.pop()
            seen.add(name)
            waiting |= {other for _, other, _ in self.imports(name)} - seen
        return {name for name in seen - BARE if self.modules[name].path.name != "__init__.py"}

    def reached(self, place: str) -> Iterator[tuple[Module, ast.AST]]:
        """Yield the definition at `MODULE:NAME` and all those that it names, in its module and others, at any depth."""
        name, _, function = place.partition(":")
        seen, waiting = set(), [(name, function)]
        while waiting:
            key = waiting.pop()
            if key in seen or key[0] not in self.modules or key[0] in BARE:
                continue
            seen.add(key)
            module = self.modules[key[0]]
            node = module.definitions.get(key[1])
            imported = {local: (other, what) for local, other, what in self.imports(module.name)}
            if node is None:
                if key[1] in imported:  # what a module only passes on
                    waiting.append(imported[key[1]])
                continue
            yield module, node
            for one in ast.walk(node):
                if isinstance(one, ast.Name):
                    waiting.append(imported.get(one.id, (module.name, one.id)))
                elif isinstance(one, ast.Attribute) and ast.unparse(one.value) in imported:
                    other, what = imported[ast.unparse(one.value)]
                    if not what:
                        waiting.append((other, one.attr))

    def sections(self, place: str) -> dict[str, set[str]]:
        """Return the sections that the function at `MODULE:NAME` reads, each with the types it asks for, as written.

        A part of the name that is known only at run time is `*`.
        """
        found: dict[str, set[str]] = {}
        for _, node in self.reached(place):
            for name, kind in sections_in(node):
                found.setdefault(name, set()).add(kind)
        return found

    def unpickles(self, place: str) -> bool:
        """Return whether the function at `MODULE:NAME`, or one that it calls, reads a pickled model."""
        return any("joblib.load(" in ast.unparse(node) for _, node in self.reached(place))


def _absolute(node: ast.ImportFrom, package: str) -> str:
    parts = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
    return ".".join([*parts, *([node.module] if node.module else [])])


def sections_in(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the name and the type of each section that a piece of code reads."""
    for one in ast.walk(node):
        if isinstance(one, ast.Call) and ast.unparse(one.func).split(".")[-1] == "section" and one.args:
            for name in _names(one.args[0], node):
                yield name, ast.unparse(one.args[1]) if len(one.args) > 1 else ""


def _names(value: ast.AST, around: ast.AST) -> list[str]:
    """Return the names that an argument may stand for."""
    if isinstance(value, ast.Constant):
        return [value.value]
    if isinstance(value, ast.JoinedStr):
        return ["".join(part.value if isinstance(part, ast.Constant) else "*" for part in value.values)]
    raise ValueError(f'section({ast.unparse(value)}): write the name of the section, or f"model/{{name}}"')


def targets(settings: Any, modules: dict[str, Module]) -> set[str]:
    """Return the modules of this package that settings name, as `_target_` does."""
    if isinstance(settings, dict | list):
        parts = settings.values() if isinstance(settings, dict) else settings
        return set().union(*(targets(part, modules) for part in parts))
    names = [str(settings).rpartition(".")[0]] if re.fullmatch(r"fieldbook(\.\w+)+", str(settings)) else []
    return {name for name in names if name in modules}


def expected(wiring: Wiring, place: str, params: dict[str, Any], stage: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Return the modules and the files of settings that a stage depends on.

    Parameters
    ----------
    wiring : of the project.
    place : of the stage's function, as in the table of stages: `MODULE:NAME`, below the package.
    params : params.yaml.
    stage : as dvc.yaml has it.
    """
    place = f"fieldbook.{place}"
    found, entries = set(wiring.sections(place)), {place.partition(":")[0]}
    entries |= targets(params["problem"], wiring.modules) if "problem" in found else set()
    models = any(name.startswith("model/") for name in found) or wiring.unpickles(place)
    entries |= targets(params["model"], wiring.modules) if models else set()
    if "bentofile.yaml" in stage.get("deps", ()):
        entries |= packed(wiring) | targets(params["problem"], wiring.modules)
    return wiring.closure(entries), {f"data/settings/{_file(name, 'matrix' in stage)}" for name in found}


def packed(wiring: Wiring) -> set[str]:
    """Return the modules that bentofile.yaml puts into the Bento."""
    patterns = yaml.safe_load((wiring.root / "bentofile.yaml").read_text())["include"]
    paths = {path for pattern in patterns for path in wiring.root.glob(pattern)}
    return {name for name, module in wiring.modules.items() if module.path in paths}


def _file(name: str, each: bool) -> str:
    """Return the file of a section, or the folder where its name is known only at run time."""
    start, star, rest = name.partition("*")
    if star and each and start == "model/":
        return f"{start}${{item.model}}{rest}.json"
    return start.rstrip("/") if star else f"{name}.json"


def code_deps(wiring: Wiring, modules: set[str], most: int = 3) -> list[str]:
    """Return what to write into `deps`: a file for each module, or a chapter's folder for more than `most` of it."""
    folders: dict[str, list[str]] = {}
    for name in sorted(modules):
        folders.setdefault(str(wiring.modules[name].path.parent.relative_to(wiring.root)), []).append(name)
    deps = []
    for folder, names in folders.items():
        whole = folder.endswith("/problems") or (len(names) > most and folder != "src/fieldbook")
        deps += [folder] if whole else [str(wiring.modules[n].path.relative_to(wiring.root)) for n in names]
    return sorted(deps)


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
    """Print for each stage of dvc.yaml what its deps on code and settings should be."""
    root = Path(__file__).parents[2]
    sys.path.insert(0, str(root / "src"))
    from fieldbook.stages import STAGES

    dvc = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    params, wiring = yaml.safe_load((root / "params.yaml").read_text()), Wiring(root)
    for stage in STAGES:
        modules, settings = expected(wiring, stage.place, params, dvc.get(stage.name, {}))
        print(f"{stage.name}:", *(f"  - {dep}" for dep in [*code_deps(wiring, modules), *sorted(settings)]), sep="\n")


if __name__ == "__main__":
    main()
