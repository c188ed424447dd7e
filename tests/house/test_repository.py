"""What is committed holds together, and carries nothing that belongs elsewhere."""

import re
from pathlib import Path

from fieldbook.scope.settings import compose


def test_params_are_what_conf_says(project: Path) -> None:
    """An experiment's overrides live in params.yaml alone; what is committed must stand in conf/, too."""
    assert compose(project / "conf") == (project / "params.yaml").read_text(), (
        "params.yaml is not what conf/ composes to: write the settings you want to keep into conf/, then `dvc repro`"
    )


def test_no_address_of_an_index_and_no_path_of_a_machine(project: Path, tracked: list[Path]) -> None:
    """Locks and code work everywhere: no package index by address, nobody's home."""
    index = re.compile(r"https?://[^\s\"']*(?:/simple|index|pypi|pythonhosted)", re.I)
    for path in tracked:
        text = path.read_text(errors="replace")
        assert not index.search(text), f"{path.relative_to(project)} names a package index"
        assert str(project) not in text, f"{path.relative_to(project)} carries a path of this machine"


def test_locks_pin_every_package_by_hash(project: Path) -> None:
    """Each requirement of both locks has one exact version and at least one hash, and the container's are a part."""

    def pinned(path: Path) -> dict[str, str]:
        blocks = re.split(r"\n(?=\S)", path.read_text().strip())
        assert all("==" in block and "--hash=sha256:" in block for block in blocks), path.name
        return {block.partition("==")[0]: block.split()[0].partition("==")[2] for block in blocks}

    everything, served = pinned(project / "requirements.lock"), pinned(project / "conf/deploy/requirements.lock")
    assert served.items() <= everything.items()
    for heavy in ("pandas", "scikit-learn", "torch", "mlflow", "hydra-core"):
        assert heavy in everything and heavy not in served


def test_readme_is_short_and_names_what_there_is(project: Path) -> None:
    """Under 210 lines, and every path in its tree exists."""
    readme = (project / "README.md").read_text()
    assert len(readme.splitlines()) < 210
    tree = readme.split("## What is where")[1].split("```")[1]
    words = re.findall(r"(?m)^ *([\w./]+)  ", tree)
    for word in words:
        places = (project / word, project / "notebooks" / word, project / "notebooks" / f"{word}.ipynb")
        assert any(place.exists() for place in places), f"README names {word}"
    chapters = {path.name for path in (project / "notebooks").iterdir() if path.is_dir() and path.name[0].isdigit()}
    assert chapters <= set(words), "README's tree leaves out a chapter"


def test_every_fault_names_a_test_there_is(project: Path) -> None:
    """`tests/FAULTS.md` says which test shows that a fault is mended."""
    named = re.findall(r"`((?:tests|notebooks)/[^`:]+)(?:::([^`\[]+))?`", (project / "tests/FAULTS.md").read_text())
    assert len(named) > 40
    for file, test in named:
        assert f"def {test}" in (project / file).read_text() if test else (project / file).is_file(), (file, test)
