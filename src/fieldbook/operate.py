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
def replay(
    model: Annotated[Path | None, option("folder of the model; the project's if not given")] = None,
    begin: Annotated[
        str | None, option("day or time in UTC; the day after what the model knew if not given", "--from")
    ] = None,
    end: Annotated[str | None, option("day or time in UTC; the last request if not given", "--to")] = None,
    http: Annotated[float | None, option("simulated hours through the Bento over HTTP; others in this process")] = None,
    speed: Annotated[float | None, option("simulated seconds in a second, at most")] = None,
    logs: Annotated[Path | None, option("a prediction log, played instead of the project's tables", "--log")] = None,
    into: Annotated[Path, option("folder for the replay's log, plans and report")] = Path("logs/replay"),
    tick: Annotated[
        bool,
        typer.Option("--tick", help="monitor, retrain and roll out at the end of each day, as `fieldbook tick` does"),
    ] = False,
) -> None:
    """Play the months after training, each request and outcome at its own time; started again, it goes on."""
    at("continual.replay:main")(model, begin, end, http, speed, logs, into, at("continual.tick:tick") if tick else None)


@app.command()
def offline(
    source: Annotated[Path, typer.Argument(metavar="LOGS", help="folder of the prediction log")],
    model: Annotated[Path, option("folder of the model that is judged, such as models/VERSION")],
    champion: Annotated[Path | None, option("folder of the champion; the project's if not given")] = None,
    models: Annotated[Path, option("folder of plans and of other models that have answered")] = Path("models"),
) -> None:
    """Say what a model would have cost, by the log of another."""
    at("experiment.relive:main")(source, model, champion, models)
