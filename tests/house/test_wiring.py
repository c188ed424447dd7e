"""dvc.yaml says what the code says: a stage depends on what it imports and the settings it reads, and on no others."""

from __future__ import annotations

import importlib
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from wiring import settings_of

from fieldbook.core.code import Wiring, modules_of, sections_in
from fieldbook.core.repro import byways, instances, road
from fieldbook.stages import ROAD, SECTIONS, STAGES, at

ROOT = Path(__file__).parents[2]
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
WIRING = Wiring(ROOT)
each_stage = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)


def covers(dep: str, file: str) -> bool:
    """Return whether a dependency is this file, or a folder that it lies in."""
    return file == dep or file.startswith(f"{dep}/")


def differ(deps: list[str], files: set[str], below: str) -> tuple[list[str], list[str]]:
    """Return the files that no dependency covers, and the dependencies below a folder that cover none of them."""
    lacking = sorted(file for file in files if not any(covers(dep, file) for dep in deps))
    ours = [dep for dep in deps if covers(below, dep) and not dep.endswith("__init__.py")]
    return lacking, sorted(dep for dep in ours if not any(covers(dep, file) for file in files))


@cache
def graph() -> Any:
    """Return the graph of stages as DVC sees it."""
    from dvc.repo import Repo

    with Repo(ROOT) as repo:
        found = repo.index.graph
        return {stage.addressing: {other.addressing for other in found.successors(stage)} for stage in found}


def needs(stage: str) -> set[str]:
    """Return the stages whose outputs a stage reads."""
    return graph()[stage]


@each_stage
def test_a_stage_depends_on_the_settings_it_reads(stage: Any) -> None:
    """Lacking one, an edit does not run the stage again; one too many, it runs for nothing."""
    files = settings_of(WIRING, stage.place, bool(stage.each))
    lacking, superfluous = differ(DVC["stages"][stage.name]["deps"], files, "data/settings")
    assert (lacking, superfluous) == ([], []), "see `python tests/house/wiring.py`, which prints them for each stage"


def test_a_stage_depends_on_the_code_it_runs() -> None:
    """By the file that the stage `code` leaves for it; what makes that file, and what comes before it, by folder."""
    for name, stage in DVC["stages"].items():
        deps, words = stage.get("do", stage)["deps"], stage.get("do", stage)["cmd"].split()
        made = [dep for dep in deps if dep.startswith("data/code/")]
        ours = [dep for dep in deps if covers("src/fieldbook", dep)]
        assert ours if name in ("settings", "code") else (made, ours) == ([f"data/code/{words[2]}.json"], []), name


def test_the_bento_holds_the_code_it_runs() -> None:
    """The service, its rehearsal, and all that they import, are in the list of bentofile.yaml."""
    patterns = yaml.safe_load((ROOT / "bentofile.yaml").read_text())["include"]
    packed = {path for pattern in patterns for path in ROOT.glob(pattern)}
    needed = WIRING.closure({"fieldbook.serve.app", "fieldbook.serve.rehearsal"})
    assert [name for name in sorted(needed) if WIRING.modules[name].path not in packed] == []


def test_every_stage_stands_in_the_table_and_is_run_by_its_name() -> None:
    """The table and dvc.yaml name the same stages, but for the pages; with an argument where the table says so."""
    called = {name: stage.get("do", stage)["cmd"].split() for name, stage in DVC["stages"].items()}
    assert all(words[:2] == ["python3", "src"] for words in called.values())
    run = {name: words[2:] for name, words in called.items() if words[2] != "publish"}
    assert run == {stage.name: [stage.name, *(["${item.model}"] if stage.each else [])] for stage in STAGES}
    assert all(callable(at(stage.place)) for stage in STAGES)


def test_the_settings_depend_on_all_that_is_composed() -> None:
    """A file of conf/ that no stage depends on could be edited, and nothing would happen."""
    defaults = yaml.safe_load((ROOT / "conf/config.yaml").read_text())["defaults"]
    groups = [f"conf/{name}" for entry in defaults if isinstance(entry, dict) for name in entry]
    files = [str(path.relative_to(ROOT)) for path in (ROOT / "conf").glob("*.yaml")]
    deps = DVC["stages"]["settings"]["deps"]
    assert [file for file in [*groups, *files] if not any(covers(dep, file) for dep in deps)] == []
    named = {f"conf/{entry}.yaml" for entry in defaults if isinstance(entry, str) and entry != "_self_"}
    assert {*files} == {*named, "conf/config.yaml"}, "every file in conf/ is composed"


def test_the_lock_names_the_stages_there_are() -> None:
    """A stage that is gone leaves nothing in dvc.lock, and one that is new has run; `make repro` sees to that."""
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    assert sorted(lock) == sorted(name for each in instances(DVC, PARAMS).values() for name in each)


def test_turns_follow_the_pipeline() -> None:
    """Each stage runs once, after all that leave what it reads; those side by side do not need one another."""
    stages = instances(DVC, PARAMS)
    main = road(ROAD, stages)
    turns = [*main, *byways(DVC, stages, main)]
    assert sorted(one for turn in turns for chain in turn for one in chain) == sorted(sum(stages.values(), []))
    done: set[str] = set()
    for turn in turns:
        for chain in turn:
            for place, stage in enumerate(chain):
                assert needs(stage) <= done | set(chain[:place]), stage
        done |= {stage for chain in turn for stage in chain}


def declared(name: str) -> Any:
    """Return the type that the table of sections gives a section, or a part of one."""
    top, _, part = name.partition("/")
    kind = at(SECTIONS[top]) if isinstance(SECTIONS[top], str) else SECTIONS[top]
    if not part:
        return kind
    return dict[str, Any] if top == "model" else kind.model_fields[part].annotation


def test_a_section_is_read_as_what_it_was_checked_as() -> None:
    """What `section` is asked for is the type in the table, by which all of conf/ is checked at once."""
    read = 0
    for name, module in WIRING.modules.items():
        for section, kind in sections_in(module.tree) if not name.startswith("fieldbook.pages.") else ():
            space = vars(importlib.import_module(name)) | {"date": date, "Any": Any}
            assert eval(kind, space) == declared(section), f"{name} reads {section} as {kind}"
            read += 1
    assert read > 20


# The checks above, on a small project in which all of it occurs.
SMALL = {
    "__init__.py": "class FieldbookError(Exception): ...",
    "settings.py": "def section(name, kind): ...",
    "one/__init__.py": "",
    "one/base.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..two import never\nx = 1",
    "one/plain.py": "import fieldbook.one.base\ndef f():\n    return fieldbook.one.base.x",
    "one/named.py": "import fieldbook.one.base as b\ndef g():\n    return b.x",
    "one/sibling.py": "from . import plain\nfrom .named import g\ndef h():\n    return plain.f() + g()",
    "two/__init__.py": "",
    "two/never.py": "",
    "two/helped.py": (
        "from ..settings import section\ndef limits():\n    return section('limits', int)\n"
        "def other():\n    return section('other', int)"
    ),
    "two/stage.py": (
        "from fieldbook.settings import section\nfrom .helped import limits\n"
        "def main(name):\n    from ..one.sibling import h\n    section(f'model/{name}', dict)\n"
        "    return h(), limits()\n"
        "def second():\n    import joblib\n    return joblib.load('m')"
    ),
}


@pytest.fixture
def small(tmp_path: Path) -> Wiring:
    """Return the small project."""
    for name, text in SMALL.items():
        (tmp_path / "src/fieldbook" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src/fieldbook" / name).write_text(text)
    return Wiring(tmp_path)


def test_all_forms_of_import_are_followed(small: Wiring) -> None:
    """Absolute, renamed, relative, inside functions; and not what only a type checker sees."""
    params = {"problem": {}, "model": {"m": {"_target_": "fieldbook.two.never.Model", "C": 1}}}
    names = {"two.stage", "two.helped", "one.sibling", "one.named", "one.plain", "one.base", "settings"}
    modules = modules_of(small, "stage", "two.stage:main", params)
    assert modules == {f"fieldbook.{name}" for name in {*names, "two.never"}}, "a model's class is imported by its name"
    assert settings_of(small, "two.stage:main", True) == {
        "data/settings/model/${item.model}.json",
        "data/settings/limits.json",
    }
    assert settings_of(small, "two.stage:main", False) == {"data/settings/model", "data/settings/limits.json"}
    assert modules_of(small, "other", "two.helped:other", params) == {"fieldbook.two.helped", "fieldbook.settings"}
    assert settings_of(small, "two.helped:other", False) == {"data/settings/other.json"}
    second = modules_of(small, "second", "two.stage:second", params)
    assert "fieldbook.two.never" in second, "what was pickled is imported"


def test_lacking_and_superfluous_dependencies_are_found() -> None:
    """A folder covers what lies in it; what covers nothing is superfluous; other folders are nobody's business."""
    deps = ["src/fieldbook/one", "src/fieldbook/two/b.py", "data/raw"]
    files = {"src/fieldbook/one/a.py", "src/fieldbook/two/c.py"}
    assert differ(deps, files, "src/fieldbook") == (["src/fieldbook/two/c.py"], ["src/fieldbook/two/b.py"])
