"""`tallystream wait --caught-up`: waits until everything acknowledged is in the tables, and in Port."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from tallystream.cli.options import DataDir, GatewayOps, JsonOption, KafkaOption, cluster, emit_json, settings_from
from tallystream.cli.output.consoles import console, err_console
from tallystream.schemas.errors import UsageError

if TYPE_CHECKING:
    from tallystream.streams.kafka.settings import KafkaSettings
    from tallystream.streams.kafka.topics import Topics


def wait(
    caught_up: Annotated[
        bool,
        typer.Option("--caught-up", help="Wait until everything acknowledged is in the tables, and in Port."),
    ] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait at most.")] = 60.0,
    gateway_ops: GatewayOps = None,
    poller_ops: Annotated[
        list[str] | None,
        typer.Option("--poller-ops", metavar="URL", help="The same for a poller.", show_default="those of run.json"),
    ] = None,
    sink_ops: Annotated[
        list[str] | None,
        typer.Option("--sink-ops", metavar="URL", help="The same for a Port sink.", show_default="those of run.json"),
    ] = None,
    json: JsonOption = False,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
) -> None:
    """Wait until the tables contain everything that gateways had acknowledged at the start. Exits with 3 on timeout.

    Exits with 4 if everything available has been counted, but acknowledged messages are missing from the tables:
    removed by retention before they were counted, unreadable in a damaged spool, or in a spool of another prefix,
    cluster or Kafka address, which no gateway here sends.

    Caught up means that no gateway has anything in its spool, in quarantine or being answered, and that the worker has
    then counted and published all messages of the usage topic. If a poller runs, openai.days includes all of OpenAI's
    records, and the reconciliation all bills and costs. If a Port sink runs, it has read all of these, and Port has
    every entity that it accepts. One case is not waited for: if a sink is replaced during a request, its successor
    repeats that request up to three hours later.
    """
    from tallystream.cli.commands.catch_up import catch_up, places_of
    from tallystream.cli.output.progress import run

    if not caught_up:
        raise UsageError("nothing to wait for was named", "use `tallystream wait --caught-up`")
    settings = settings_from(data_dir, kafka)
    reach = cluster(settings)
    find = partial(places_of, settings, gateway_ops or (), poller_ops or (), sink_ops or ())
    places = find()
    if not places.gateways:
        err_console.print(
            "No gateway is known here, so spools are not checked. Name gateways with --gateway-ops URL.", style="yellow"
        )
    if not places.sinks and run(sinks_elsewhere(reach, settings.topics())):
        err_console.print("A Port sink runs elsewhere and is not checked. Name it with --sink-ops URL.", style="yellow")
    began = time.monotonic()
    with err_console.status("catching up") as spinner:

        def show(behind: str) -> None:
            spinner.update(Text(f"catching up: {behind}"))

        run(catch_up(reach, settings.topics(), find, seconds=timeout, show=show))
    seconds = round(time.monotonic() - began, 3)
    if json:
        emit_json(
            {
                "caught_up": True,
                "seconds": seconds,
                "gateways": len(places.gateways),
                "pollers": len(places.pollers),
                "sinks": len(places.sinks),
            }
        )
    else:
        console.print(f"caught up after {seconds:.1f} s")


def register(app: typer.Typer) -> None:
    """Add `wait`."""
    app.command("wait")(wait)


async def sinks_elsewhere(kafka: KafkaSettings, topics: Topics) -> bool:
    """Return whether the sinks' group has members; False if Kafka does not answer."""
    from aiokafka.errors import KafkaError

    from tallystream.streams.kafka.admin import administering

    try:
        async with administering(kafka, request_timeout=3.0) as admin:
            responses = await admin.describe_consumer_groups([topics.sink_group])
        return any(one[2] not in ("Dead", "Empty", "") for response in responses for one in response.groups)
    except (KafkaError, OSError):
        return False
