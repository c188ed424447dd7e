"""Whatever is wrong in conf/ is told in one line: the file and the line in it, the setting, and what is allowed."""

import re
import shutil
from collections.abc import Iterator
from copy import deepcopy
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml

from fieldbook import FieldbookError
from fieldbook.scope.check import check_sections, check_targets
from fieldbook.scope.settings import compose
from fieldbook.stages import SECTIONS

ROOT = Path(__file__).parents[2]
SETTINGS = yaml.safe_load(compose(ROOT / "conf"))
(PROBLEM,) = re.findall(r"(?m)^  - problem: (\w+)", (ROOT / "conf/config.yaml").read_text())
Keys = tuple[str | int, ...]

# Whose keys are names that the user gives.
FREE = re.compile(
    r"model(\.\w+\.estimator)?|model\.\w+\.regressor|scope\.(framings|requirements)|checks\.slices(\.[^.]+)?|ingest\.tables"
    r"(\.\w+\.columns)?|features\.(request|groups|derive)|combine\.weights|rules|monitor\.windows|policies\.ways"
    r"|problem\.extra_time_zones|scope\.framings\.\w+\.(costs\.(table(\.[^.]+)?|labels(\.[^.]+)?)|fairness\.\d+\.groups)"
)
# What the class that is named there checks when it is built.
ITS_OWN = re.compile(r"model\.\w+\.(estimator|regressor|only)\b.*|.*\._target_|model\.\w+\.rows.*")


def dotted(keys: Keys) -> str:
    """Return keys as a message writes them."""
    return ".".join(map(str, keys))


def places(value: Any, keys: Keys) -> Iterator[tuple[Keys, Any]]:
    """Yield every place in a value, with what stands there."""
    yield keys, value
    for key, part in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ()):
        yield from places(part, (*keys, key))


def stands(keys: Keys) -> Any:
    """Return what stands at these keys in the composed settings."""
    return reduce(lambda value, key: value[key], keys, SETTINGS)


def cases() -> Iterator[Any]:
    """Yield a wrong key and a wrong type for each kind of place in each file that is composed."""
    seen = set()
    for path in [*ROOT.glob("conf/*.yaml"), ROOT / f"conf/problem/{PROBLEM}.yaml", *ROOT.glob("conf/model/*.yaml")]:
        prefix = ("model",) if path.parent.name == "model" else ()
        content = {key: value for key, value in yaml.safe_load(path.read_text()).items() if key != "defaults"}
        for keys, value in places(content, prefix):
            name = dotted(keys)
            kind = re.sub(r"\.\d+", ".*", name)
            kind = re.sub(r"(tables\.\w+\.columns|request|slices|columns|framings\.\w+\.behave)\.[^.]+", r"\1.*", kind)
            if not keys or kind in seen or (not isinstance(value, dict) and value != stands(keys)):
                continue  # the problem's file says otherwise, or it refers to another setting
            seen.add(kind)
            if isinstance(value, dict) and value and not FREE.fullmatch(name):
                yield pytest.param(path, len(prefix), keys, "key", id=f"key-{name}")
            if not isinstance(value, dict) and not ITS_OWN.fullmatch(name):
                yield pytest.param(path, len(prefix), keys, "type", id=f"type-{name}")


def spoil(content: Any, keys: Keys, what: str) -> Keys:
    """Add a key that there is not to what stands there, or put another type in its place; return where the fault is."""
    if what == "type":
        *parents, last = keys
        inside = reduce(lambda value, key: value[key], parents, content)
        inside[last] = {"never": "so"}
        return keys
    inside = reduce(lambda value, key: value[key], keys, content)
    first = next(key for key in inside if key != "_target_")
    inside[f"{first}z"] = 1
    return (*keys, f"{first}z")


@pytest.mark.parametrize(("path", "skip", "keys", "what"), list(cases()))
def test_a_wrong_setting_is_told_in_one_line(path: Path, skip: int, keys: Keys, what: str, tmp_path: Path) -> None:
    """It is put into the file and into what was composed of it; the line names the file and the key as it stands."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf", ignore=shutil.ignore_patterns("deploy", "tune"))
    file, content = tmp_path / path.relative_to(ROOT), yaml.safe_load(path.read_text())
    spoil(content, keys[skip:], what)
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    settings = deepcopy(SETTINGS)
    wrong = dotted(spoil(settings, keys, what))
    with pytest.raises(FieldbookError) as error:
        check_sections(settings, tmp_path / "conf", known=SETTINGS)
        check_targets(settings, tmp_path / "conf", known=SETTINGS)
    told = re.fullmatch(r"(conf/\S+?\.yaml):\d+: (.+?): (.+)", str(error.value))
    assert told and told[1] == str(path.relative_to(ROOT)), error.value
    if what == "key":
        assert told[2] == wrong and "there is no such setting (did you mean " in told[3] and "; there are " in told[3]
    else:
        assert wrong.startswith(told[2]) and "(found " in told[3] or told[2].startswith(wrong), error.value


def test_every_section_is_tried() -> None:
    """Each section of the table is written wrongly above, but for those that are made of others."""
    tried = {case.values[2][0] for case in cases()}
    assert tried == SECTIONS.keys() - {"models", "task", "companions", "missing", "measure", "package"}


@pytest.mark.parametrize(("name", "key"), [("missing", "rows"), ("measure", "rows"), ("package", "samples")])
def test_what_may_be_empty_knows_its_keys(name: str, key: str) -> None:
    """All settings of these have defaults; a wrong one is told all the same."""
    message = rf"conf: {name}.{key}z: there is no such setting \(did you mean {key}\?\)"
    with pytest.raises(FieldbookError, match=message):
        check_sections({**SETTINGS, name: {f"{key}z": 1}}, ROOT / "conf")
