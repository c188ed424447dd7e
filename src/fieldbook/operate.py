"""The commands of those who run the service: its log, its monitor, what is tried on it, and what is learnt anew."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fieldbook import FieldbookError
from fieldbook.stages import at

app = typer.Typer()


def option(text: str, *names: str) -> Any:
    """Return an option with its help."""
    return typer.Option(*names, help=text)


@app.command()
def compact(logs: Annotated[Path, typer.Argument(help="the folder of the prediction log")] = Path("logs")) -> None:
    """Make Parquet files of the log's closed files; a server may go on writing beside it."""
    if not logs.is_dir():
        raise FieldbookError(f"{logs} is no folder: say where the prediction log is")
    made = at("observe.log:compact")(logs)
    print(f"{len(made)} files made in {logs}")


@app.command()
def monitor(
    source: Annotated[Path, typer.Argument(metavar="LOGS", help="folder of the prediction log, or a file of requests")],
    champion: Annotated[Path | None, option("folder of the model; the project's if not given")] = None,
    to: Annotated[Path | None, option("folder for the report; LOGS/monitor if not given")] = None,
    now: Annotated[str | None, option("the time of looking, UTC, as in 2013-11-02T08:00")] = None,
    every: Annotated[float | None, typer.Option(min=1, help="look again after so many seconds, until stopped")] = None,
    port: Annotated[
        int | None, option("beside --every: figures for Prometheus at http://127.0.0.1:PORT/metrics")
    ] = None,
) -> None:
    """Say whether the model is still right, how sure that is, what it costs, and why."""
    if every is None:
        at("monitor.monitor:main")(source, champion, to, now)
    else:
        at("monitor.monitor:follow")(source, champion, to, every, port)


@app.command()
def study(quick: Annotated[bool, typer.Option("--quick", help="a tenth of it, and only printed")] = False) -> None:
    """Plant faults into real weeks and count what the monitor finds -> tests/monitor/error_rates.json."""
    at("monitor.study:main")(quick)


@app.command()
def proof(quick: Annotated[bool, typer.Option("--quick", help="a small part of it, and only printed")] = False) -> None:
    """Play planted challengers and count what verdicts get right -> tests/experiment/proof.json."""
    at("experiment.proof:main")(quick)
