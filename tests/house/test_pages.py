"""The pages of this run in a real browser: they can be read by everybody, lead to one another, and load nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from browser import needs_axe, needs_browser, serious

from fieldbook.core.page import Outside
from fieldbook.core.publish import PAGES, notebooks

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def pages(project: Path) -> dict[str, str]:
    """Return all pages of the pipeline by their name."""
    folder = project / "data/reports"
    return {str(path.relative_to(folder).with_suffix("")): path.read_text() for path in folder.rglob("*.html")}


def test_every_page_has_its_stage_and_its_notebook(project: Path) -> None:
    """The way through the pages is that of dvc.yaml, and each is made of the notebook whose name it has."""
    wiring = yaml.safe_load((project / "dvc.yaml").read_text())["stages"]["publish"]["foreach"]
    folder = project / "notebooks"
    made = {f"{page['chapter']}/{name}": folder / f"{page['from']}.ipynb" for name, page in wiring.items()}
    books = notebooks(folder)
    assert set(PAGES) == set(made) and made.items() <= books.items()


def test_pages_begin_with_the_result_and_load_nothing(pages: dict[str, str]) -> None:
    assert {*PAGES, "index"} <= pages.keys()
    for name, page in pages.items():
        main = page.split("<main>")[1]
        assert main.lstrip().startswith('<div class="result">'), f"{name} does not begin with a result"
        assert Outside(page).found == [], name


def test_links_between_pages_lead_somewhere(project: Path, pages: dict[str, str]) -> None:
    """All but those to the site, which `make site` makes."""
    for name, page in pages.items():
        here = (project / "data/reports" / name).parent
        for link in re.findall(r'href="([^"#:]+\.html)"', page):
            assert "/site/" in link or (here / link).exists(), f"{name} leads to {link}"


@needs_browser
@needs_axe
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pages_can_be_read_by_everybody(pages: dict[str, str], tmp_path: Path, dark: bool) -> None:
    """axe-core finds nothing serious on any page."""
    found = {
        name: serious(page, tmp_path, dark) for name, page in pages.items() if not dark or name in ("index", "select")
    }
    assert {name: one for name, one in found.items() if one} == {}
