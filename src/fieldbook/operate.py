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
def retrain(
    day: Annotated[str | None, option("the first day that is not known yet, UTC; today if not given", "--at")] = None,
    stateful: Annotated[bool, option("go on from the champion's state, and not from scratch", "--stateful")] = False,
) -> None:
    """Learn the champion's model anew on what is known, and put it into models/ if the gate lets it."""
    at("continual.retrain:main")(day, stateful)


@app.command()
def policies() -> None:
    """Hold ways of keeping the model fresh against one another, on the months since -> logs/policies/."""
    at("continual.policies:main")()


@app.command()
def study(quick: Annotated[bool, typer.Option("--quick", help="a tenth of it, and only printed")] = False) -> None:
    """Plant faults into real weeks and count what the monitor finds -> tests/monitor/error_rates.json."""
    at("monitor.study:main")(quick)


rollout = typer.Typer(no_args_is_help=True, help="Who answers: try a model, promote it, take it back, look.")
app.add_typer(rollout, name="rollout")
MODELS = option("folder of models; FIELDBOOK_MODELS, or models/, if not given")
WHO = option("who decides; user@host if not given")


def decided(plan: Any, models: Path) -> None:
    """Say what a plan changes; then let the registry follow."""
    plans = at("experiment.change:history")(models)
    print(
        f"plan {plan.number}: {at('experiment.change:changed')(plan, plans[-2] if len(plans) > 1 else None)}",
        flush=True,
    )
    print(at("experiment.registry:align")(Path(), plans, at("experiment.rollout:title")(models, plan)))


@rollout.command()
def start(
    model: Annotated[str, typer.Argument(metavar="VERSION|FOLDER", help="of the model that is to be tried")],
    way: Annotated[
        str | None, option("shadow, canary, ab, interleaving or bandit; as conf/ has it if not given")
    ] = None,
    share: Annotated[float | None, option("of the units that the challenger answers")] = None,
    by: Annotated[list[str] | None, option("a field of a request that names an entity; may be given again")] = None,
    first: Annotated[int | None, option("of interleaving: rows of a request that are acted on")] = None,
    why: Annotated[str, option("in a sentence")] = "to be tried",
    who: Annotated[str | None, WHO] = None,
    models: Annotated[Path | None, MODELS] = None,
) -> None:
    """Try a model beside the champion."""
    folder = at("experiment.models:folder_of")(models)
    settings = at("core.section:section")("rollout", at("experiment.rollout:Rollout"))
    plan = at("experiment.rollout:start")(model, folder, settings, way, share, by or [], first, why, who)
    decided(plan, folder)


@rollout.command()
def promote(
    why: Annotated[str, typer.Option(help="in a sentence")],
    model: Annotated[str | None, typer.Argument(metavar="VERSION|FOLDER", help="what is tried if not given")] = None,
    who: Annotated[str | None, WHO] = None,
    models: Annotated[Path | None, MODELS] = None,
) -> None:
    """Let a model answer everything, from now on."""
    folder = at("experiment.models:folder_of")(models)
    decided(at("experiment.rollout:promote")(folder, model, why, who), folder)


@rollout.command()
def back(
    why: Annotated[str, typer.Option(help="in a sentence")],
    who: Annotated[str | None, WHO] = None,
    models: Annotated[Path | None, MODELS] = None,
) -> None:
    """Take back what is tried, or else the last promotion; asked again, go further back."""
    folder = at("experiment.models:folder_of")(models)
    decided(at("experiment.rollout:back")(folder, why, who), folder)


@rollout.command()
def status(
    logs: Annotated[Path, option("folder of the prediction log")] = Path("logs"),
    models: Annotated[Path | None, MODELS] = None,
    now: Annotated[str | None, option("the time of looking, UTC")] = None,
) -> None:
    """Say who answers, what is tried, what its log says so far, and who decided what, when and why."""
    folder = at("experiment.models:folder_of")(models)
    at("experiment.status:status")(folder, logs, Path(), now)


@app.command()
def tick(
    logs: Annotated[Path, option("folder of the prediction log")] = Path("logs"),
    models: Annotated[Path | None, MODELS] = None,
    now: Annotated[str | None, option("the time of the tick, UTC, as in 2013-11-02T08:00")] = None,
) -> None:
    """Do what is missing: take in what is new, monitor, learn anew if due, try what passed, judge what is tried."""
    at("continual.tick:main")(now, logs, at("experiment.models:folder_of")(models))


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
        typer.Option("--tick", help="monitor, learn anew and roll out at the end of each day, as `tick` does"),
    ] = False,
) -> None:
    """Play the months after training, each request and outcome at its own time; started again, it goes on."""
    ticked = at("continual.replay:ticked") if tick else None
    at("continual.replay:main")(model, begin, end, http, speed, logs, into, ticked)


@app.command()
def offline(
    source: Annotated[Path, typer.Argument(metavar="LOGS", help="folder of the prediction log")],
    model: Annotated[Path, option("folder of the model that is judged, such as models/VERSION")],
    champion: Annotated[Path | None, option("folder of the champion; the project's if not given")] = None,
    models: Annotated[Path, option("folder of plans and of other models that have answered")] = Path("models"),
) -> None:
    """Say what a model would have cost, by the log of another."""
    at("experiment.relive:main")(source, model, champion, models)


@app.command()
def proof(quick: Annotated[bool, typer.Option("--quick", help="a small part of it, and only printed")] = False) -> None:
    """Play planted challengers and count what verdicts get right -> tests/experiment/proof.json."""
    at("experiment.proof:main")(quick)
