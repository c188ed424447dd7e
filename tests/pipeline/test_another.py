"""Another problem, and a run that stops: nothing of one passes for the other, and whose Bento it is stands first."""

from __future__ import annotations

import json

import pytest
from scratch import FILE, Project, errors, ran

pytestmark = pytest.mark.slow


def ask_another(project: Project) -> None:
    """Let conf/ ask a problem that is the same in all but its name."""
    text = (project.path / project.problem).read_text()
    (project.path / "conf/problem/market.yaml").write_text(text.replace("name: shop", "name: market"))
    project.edit("conf/config.yaml", r"- problem: \w+", "- problem: market")


def test_another_problem_leaves_nothing_of_the_one_before(project: Project) -> None:
    """No figure, page or Bento is left; neither `ready` nor `summary` takes one for the other; going back is free."""
    for name in ("reports/index.html", "measure/verdict.json", "audit/drop.csv"):
        (project.path / "data" / name).parent.mkdir(exist_ok=True)
        (project.path / "data" / name).touch()
    assert project.do("fieldbook", "ready").stdout.startswith("shop: a Bento with ")
    ask_another(project)
    for command in ("ready", "summary"):
        (told,) = errors(project.run("fieldbook", command))
        assert "conf/ asks" in told and "shop: a Bento with " in told and "run `make repro`" in told
    project.do("python3", "src", "settings")
    left = {path.name for path in (project.path / "data").iterdir()} - {".gitignore"}
    assert left == {"settings", "code", "sources"}
    (told,) = errors(project.run("fieldbook", "ready"))
    assert "holds no Bento of market" in told
    assert "leaderboard.json is not there yet" in errors(project.run("fieldbook", "summary"))[0]
    project.edit("conf/config.yaml", r"- problem: \w+", "- problem: shop")
    done = project.do("dvc", "repro", "bento")
    assert not [stage for stage in ran(done) if stage.startswith("train")]
    assert project.do("fieldbook", "ready").stdout.startswith("shop: a Bento with ")


def test_a_run_that_stopped_is_told_with_the_bento_of_the_run_before(project: Project) -> None:
    """`ready` says in its first line that the Bento is older, and where the run stopped."""
    table = (project.path / FILE).read_text()
    (project.path / FILE).write_text(table.splitlines()[0] + "\n")
    done = project.run("fieldbook", "repro")
    assert done.returncode == 1 and len(errors(done)) == 1, done.stdout
    first = project.do("fieldbook", "ready").stdout.splitlines()[0]
    assert first.startswith("shop: a Bento with ") and "older than conf/" in first and first.endswith("at ingest")
    (project.path / FILE).write_text(table)
    project.do("dvc", "repro", "bento")
    assert "older" not in project.do("fieldbook", "ready").stdout


def test_a_study_that_fails_leaves_bento_summary_and_other_pages(project: Project) -> None:
    """The run ends with status 1 and one line that names it."""
    project.edit(
        "src/fieldbook/select/audit.py",
        r"(?m)^def main\(\).*\n",
        'def main() -> None:\n    from .. import FieldbookError\n\n    raise FieldbookError("no")\n',
    )
    done = project.run("fieldbook", "repro", seconds=900)
    assert done.returncode == 1, done.stdout
    assert errors(done)[-1].startswith("beside the road audit, publish@audit failed"), errors(done)
    assert "shop: a Bento with " in done.stdout and "next     make serve" in done.stdout
    assert (project.path / "data/reports/index.html").exists() and not (project.path / "data/audit").exists()
    assert json.loads((project.path / "tmp/stopped.json").read_text())[0] == "audit"
