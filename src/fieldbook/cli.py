"""The command line: a subcommand for each stage of the table in `stages`, and a few for people.

Modules are imported only when their command runs: a stage that needs no torch does not pay for it.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fieldbook import FieldbookError, operate
from fieldbook.operate import option
from fieldbook.stages import ROAD, SECONDS, STAGES, Stage, at

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
PANEL = "Stages, which `dvc repro` calls"
app.add_typer(operate.app)


def add_stage(stage: Stage) -> None:
    """Add the command of a stage."""

    def once() -> None:
        at(stage.place)()

    def for_each(item: Annotated[str, typer.Argument(metavar=stage.each)]) -> None:
        at(stage.place)(item)

    app.command(stage.name, help=stage.summary, rich_help_panel=PANEL)(for_each if stage.each else once)


for each_stage in STAGES:
    add_stage(each_stage)


@app.command()
def repro() -> None:
    """Run the pipeline on all cores: the main road to the Bento and its summary, then studies and pages."""
    at("core.verify:in_repository")(Path.cwd())
    if at("core.repro:is_outdated")():
        at("scope.settings:main")()
    current, seconds = at("core.repro:is_current")(), SECONDS | {stage.name: stage.seconds for stage in STAGES}
    road, byways = at("core.repro:plan")(ROAD)
    if not (current or at("core.repro:repro")(road, seconds)):
        sys.exit(1)  # what was wrong is told
    at("package.summary:main")()
    slow = None
    try:
        at("measure.latency:main")()
    except FieldbookError as error:  # told at the end: studies and pages are made all the same
        slow = error
    good = current or at("core.repro:repro")(byways, seconds, go_on=True)
    at("core.repro:forget")([stage for turn in [*road, *byways] for chain in turn for stage in chain])
    if slow:
        raise slow
    if not good:
        failed = ", ".join(at("core.repro:stopped")())
        raise FieldbookError(f"beside the road {failed} failed, as said above; the Bento and all other pages are made")


@app.command()
def site() -> None:
    """Make data/site/ of all notebooks, executed whole; only what has changed."""
    at("core.site:main")()


@app.command(rich_help_panel=PANEL)
def publish(notebook: str, model: Annotated[str | None, typer.Argument()] = None) -> None:
    """Make the page of a notebook, or its page for MODEL."""
    at("core.publish:main")(notebook, model)


@app.command()
def export() -> None:
    """Write the modules of the notebooks that have changed."""
    at("core.export:main")()


@app.command()
def adopt(
    source: Annotated[str, typer.Argument(help="a file, a folder of files, or the address of a database")],
    target: Annotated[
        list[str] | None, option("the column to be predicted; several of 0 and 1: several events")
    ] = None,
    name: Annotated[str | None, option("of the problem; the source's if not given")] = None,
    as_of: Annotated[str | None, option("the column with the time of the prediction, or none")] = None,
    kind: Annotated[str | None, option("binary, multiclass or regression, if not by the column")] = None,
    positive: Annotated[str | None, option("binary: the value for which the answer is yes")] = None,
    key: Annotated[list[str] | None, option("a column that names a row; may be given again")] = None,
    cluster: Annotated[str | None, option("the column that says who or what a row is about")] = None,
    drop: Annotated[list[str] | None, option("a column that is not to be used; may be given again")] = None,
    keep: Annotated[list[str] | None, option("a column that is used all the same; may be given again")] = None,
    cost: Annotated[list[str] | None, option("missed=10 and false_alarm=1, or under=2 and over=1")] = None,
    unit: Annotated[str, option("of the costs")] = "cost",
    compare: Annotated[str | None, option("a column whose groups shall fare alike")] = None,
    times: Annotated[
        list[str] | None, option("COLUMN=FORMAT of times, as in placed=%d/%m/%Y; may be given again")
    ] = None,
    words: Annotated[list[str] | None, option("a column that stays text; may be given again")] = None,
    missing: Annotated[list[str] | None, option("COLUMN=WORD that means nothing is known; may be given again")] = None,
    read: Annotated[list[str] | None, option("how a text file is read, as in encoding=cp1252 or decimal=,")] = None,
    sheet: Annotated[str | None, option("of a workbook")] = None,
    table: Annotated[str | None, option("of a database")] = None,
    query: Annotated[str | None, option("of a database, instead of a table")] = None,
    yes: Annotated[bool, option("take what is proposed; ask nothing", "--yes", "-y")] = False,
    force: Annotated[bool, option("make a problem again; what you changed in its file stays", "--force")] = False,
) -> None:
    """Make a problem of a table of your own: SOURCE -> data/sources/, conf/problem/NAME.yaml."""
    given = {**dict(pairs("read", read)), "sheet": sheet, "words": words, "drop": drop}
    given |= {"times": dict(pairs("times", times)), "missing": grouped(pairs("missing", missing))}
    place = at("problems.adopt:Source")(source, table, query, {name: value for name, value in given.items() if value})
    said = (
        target or [],
        as_of,
        kind,
        positive,
        key or [],
        cluster,
        drop or [],
        keep or [],
        prices(cost),
        unit,
        compare,
    )
    terminal = sys.stdin.isatty() and sys.stdout.isatty() and not yes
    if not (terminal or yes or target):
        raise FieldbookError("adopt: say --target COLUMN, or --yes to take what is proposed")
    at("problems.adopt:main")(place, at("problems.plan:Wish")(*said), name, force, prompt if terminal else None)


def prompt(question: str, hint: str, proposed: str) -> str:
    """Ask a person on the terminal; an empty answer takes what is proposed."""
    return typer.prompt(f"{question} ({hint})", default=proposed, show_default=bool(proposed))


def pairs(option: str, given: list[str] | None) -> list[tuple[str, str]]:
    """Return NAME=VALUE options as pairs."""
    wrong = next((one for one in given or [] if "=" not in one), None)
    if wrong is not None:
        raise FieldbookError(f"--{option} {wrong}: write it as NAME=VALUE")
    return [(name.strip(), value) for name, _, value in (one.rpartition("=") for one in given or [])]


def grouped(given: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the values of each name."""
    return {name: [value for other, value in given if other == name] for name, _ in given}


def prices(given: list[str] | None) -> dict[str, float]:
    """Return costs by name."""
    try:
        return {name: float(value) for name, value in pairs("cost", given)}
    except ValueError:
        raise FieldbookError(f"--cost {' '.join(given or [])}: a cost is a number") from None


@app.command()
def measure() -> None:
    """Time every model on this machine; fail if the champion breaks a limit on latency."""
    at("measure.latency:main")()


@app.command()
def overload(
    rows: Annotated[int, typer.Option(help="of a request, 1 or 100")] = 100,
    seconds: Annotated[float, typer.Option(min=0.5, help="for each rate")] = 4,
) -> None:
    """Offer the Bento half, all, twice and five times what it can do on this machine."""
    at("measure.overload:main")(rows, seconds)


@app.command()
def bench(
    seconds: Annotated[float, typer.Option(min=0.05, help="for each number of rows and callers, in each round")] = 1.5,
    rounds: Annotated[int, typer.Option(min=1, help="over all servers; medians of them are shown")] = 3,
    only: Annotated[list[str] | None, typer.Option(help="a server; may be given again")] = None,
) -> None:
    """Time the Bento on this machine, next to other servers with the same champion."""
    at("measure.bench:main")(seconds, rounds, only)


@app.command()
def summary() -> None:
    """Say what the last run chose, and why, and where everything lies."""
    at("package.summary:main")()


@app.command()
def ready() -> None:
    """Say whose Bento data/bento is; fail if there is none, or conf/ asks for another problem."""
    at("package.ready:main")()


@app.command()
def verify(revision: Annotated[str, typer.Argument(help="the commit to compare with")] = "HEAD") -> None:
    """Compare the outputs of a run with the committed ones: equal, within tolerance, or different."""
    raise typer.Exit(0 if at("core.verify:verify")(revision) else 1)


@app.command()
def tune(
    model: Annotated[str, typer.Argument(help="a model of conf/model/ with a space in conf/tune/")],
    trials: Annotated[int | None, typer.Option(min=1, help="as many in all, those done before included")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="processes; one a core if not given")] = None,
    name: Annotated[str | None, typer.Option(help="of the model file; MODEL_tuned if not given")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a model file that says something else")] = False,
) -> None:
    """Search the hyper-parameters of a model; start again after any interruption, and it goes on."""
    at("select.tune:main")(model, trials, jobs, name, force)


@app.command()
def lineage(identity: Annotated[str, typer.Argument(help="as a prediction in the log carries it")]) -> None:
    """Say where a model came from: commit, run, data, settings, figures."""
    print(json.dumps(at("package.track:lineage")(identity), indent=2))


def main() -> None:
    """Run the command; an error a person can mend is one line on stderr and exit status 1."""
    # A thread of OpenMP that waits spins. Where others compute, too, it takes the core from the one it waits for, and
    # a fit took up to ten times as long. So soon it sleeps, and on a quiet machine costs no more.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        app()
    except FieldbookError as error:
        print(f"fieldbook: {error}", file=sys.stderr)
        sys.exit(1)
    except FileNotFoundError as error:  # a command by hand, before the stages it builds on
        missing = str(error.filename or error)
        if not missing.startswith("data/"):
            raise
        print(f"fieldbook: {missing} is missing: run `dvc repro`, which makes it", file=sys.stderr)
        sys.exit(1)
