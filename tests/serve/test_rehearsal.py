"""Nothing is called built that does not answer: what a Bento's code and champion must get through before it is one."""

import json
import shutil
from pathlib import Path

import pytest

from fieldbook import FieldbookError
from fieldbook.package.bento import rehearse
from fieldbook.serve.app import Fieldbook
from fieldbook.serve.rehearsal import in_process
from fieldbook.serve.small import small_champion

ROOT = Path(__file__).resolve().parents[2]
SERVICE, REHEARSAL = Fieldbook.inner.__module__, in_process.__module__


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a folder like a Bento's `src`, with the service's code and a small champion."""
    (tmp_path / "data/champion").mkdir(parents=True)
    small_champion(tmp_path / "data/champion")
    shutil.copytree(ROOT / "src/fieldbook", tmp_path / "src/fieldbook", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_what_answers_its_samples_passes(source: Path) -> None:
    """The service's own code, without the packages that a container does not have."""
    rehearse(source, SERVICE, REHEARSAL)


def test_a_module_that_was_forgotten_is_named(source: Path) -> None:
    """As where bentofile.yaml does not list it."""
    path = source / "src" / Path(*SERVICE.split(".")).with_suffix(".py")
    text = path.read_text().replace("import atexit\n", "import atexit\nimport fieldbook.forgotten\n", 1)
    path.write_text(text)
    with pytest.raises(FieldbookError, match="does not answer: .*No module named 'fieldbook.forgotten'$"):
        rehearse(source, SERVICE, REHEARSAL)


def test_another_answer_is_told_in_a_line(source: Path) -> None:
    """The sample, the field, what it must be and what it is."""
    path = source / "data/champion/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["samples"][0]["answer"]["probability"] = 0.8
    path.write_text(json.dumps(manifest))
    with pytest.raises(FieldbookError) as error:
        rehearse(source, SERVICE, REHEARSAL)
    assert "must get probability 0.8 and gets 0.9" in str(error.value) and "\n" not in str(error.value)
