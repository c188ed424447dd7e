"""Notebooks and modules say the same, and notebooks are committed clean."""

import filecmp
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(
    path for path in (ROOT / "notebooks").rglob("*.ipynb") if not re.search(r"/[._]", str(path.relative_to(ROOT)))
)
HAND_WRITTEN = {"__init__.py", "__main__.py", "cli.py", "operate.py", "stages.py"}
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def export(project: Path) -> None:
    """Export the notebooks of a project as `make export` does."""
    shutil.copy(ROOT / "pyproject.toml", project)
    subprocess.run([Path(sys.executable).with_name("nbdev-export")], cwd=project, check=True, capture_output=True)


def test_modules_are_what_the_notebooks_export(tmp_path: Path) -> None:
    """Export to an empty folder and compare: it finds edits on either side, and modules whose notebook is gone."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    (tmp_path / "src/fieldbook").mkdir(parents=True)
    export(tmp_path)
    found = [path.relative_to(ROOT / "src/fieldbook") for path in (ROOT / "src/fieldbook").rglob("*.py")]
    ours = {str(path) for path in found if path.parts[0] != "pages"} - HAND_WRITTEN
    exported = {
        str(path.relative_to(tmp_path / "src/fieldbook")) for path in (tmp_path / "src/fieldbook").rglob("*.py")
    } - HAND_WRITTEN
    assert ours - exported == set(), "these modules have no notebook: delete them, or bring the notebook back"
    assert exported - ours == set(), "these notebooks were never exported: run `make export`"
    _, differ, _ = filecmp.cmpfiles(ROOT / "src/fieldbook", tmp_path / "src/fieldbook", sorted(ours), shallow=False)
    assert differ == [], (
        "module and notebook disagree: run `make export` (or `nbdev-update` to keep an edit of the module)"
    )


@each_notebook
def test_no_outputs_are_committed(path: Path) -> None:
    """Outputs belong to data/reports/; in a notebook they hide what changed."""
    cells = json.loads(path.read_text())["cells"]
    dirty = [cell["id"] for cell in cells if cell.get("outputs") or cell.get("execution_count")]
    assert dirty == [], f"run `make export`: {path.name} has outputs in these cells"


@each_notebook
def test_cell_ids_are_unique(path: Path) -> None:
    """Tests and exported code are named by cell ids; a copied cell must get its own."""
    ids = Counter(cell["id"] for cell in json.loads(path.read_text())["cells"])
    assert [name for name, times in ids.items() if times > 1] == [], "give the copied cells ids of their own"


@each_notebook
def test_no_merge_conflict_was_left(path: Path) -> None:
    """nbdev turns a conflict into cells around both versions; the notebook stays valid and its tests may pass."""
    markers = [
        cell["id"]
        for cell in json.loads(path.read_text())["cells"]
        if re.search(r"(?m)^(`?<{7}|`?>{7}|={7}$)", "".join(cell["source"]))
    ]
    assert markers == []


@each_notebook
def test_every_definition_is_shown_at_work(path: Path) -> None:
    """A notebook that exports code also asserts something about it."""
    code = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    exports = [text for text in code if text.startswith("#| export")]
    asserts = [
        text
        for text in code
        if re.search(r"(?m)^\s*(assert|raise AssertionError)\b|\brefuses\(", text) and text not in exports
    ]
    assert not exports or asserts
