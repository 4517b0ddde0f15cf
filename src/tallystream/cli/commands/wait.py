"""`tallystream wait --caught-up`: block until all that was acknowledged is in the tables, and in Port."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from tallystream.cli.options import (
    DataDir,
    GatewayOps,
    JsonOption,
    KafkaOption,
    cluster,
    console,
    emit_json,
    err_console,
    settings_from,
)
from tallystream.schemas.errors import UsageError

if TYPE_CHECKING:
    from tallystream.streams.kafka.settings import KafkaSettings
    from tallystream.streams.kafka.topics import Topics


def wait(
    caught_up: Annotated[
        bool,
        typer.Option("--caught-up", help="Wait until all that was acknowledged can be read, and is in Port."),
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
    """Wait until the tables hold everything that gateways had acknowledged when this began; exit 3 when they do not.

    Exit 4: everything that there is has been counted, and some that was acknowledged is missing for good (removed by
    retention before it was counted, or in a damaged spool).

    Caught up means: no gateway has anything in its spool, in quarantine or in the middle of an answer; after that, the
    worker has counted and published all that was on the usage topic, and the rows topic can be read. Where a poller
    runs, openai.days then says what OpenAI's records do. Where a Port sink runs, it has read all of that, and Port has
    every entity of it that it does not refuse: nothing is to be mapped, sent or sent again. (What a sink that was
    replaced in mid-request may yet write is written once more up to three hours later; that is not waited for.)
    """
    from tallystream.cli.commands.catch_up import catch_up, places_of
    from tallystream.cli.output.progress import run

    if not caught_up:
        raise UsageError("what to wait for?", "`tallystream wait --caught-up`")
    settings = settings_from(data_dir, kafka)
    reach = cluster(settings)
    find = partial(places_of, settings, gateway_ops or (), poller_ops or (), sink_ops or ())
    places = find()
    if not places.gateways:
        err_console.print(
            "No gateway is known here: spools are not looked at (--gateway-ops URL does that).", style="yellow"
        )
    if not places.sinks and run(sinks_elsewhere(reach, settings.topics())):
        err_console.print(
            "A Port sink runs elsewhere: what it has sent is not looked at (--sink-ops URL does that).", style="yellow"
        )
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
    """Tell whether sinks' group has members; False when Kafka does not say."""
    from aiokafka.errors import KafkaError

    from tallystream.streams.kafka.admin import administering

    try:
        async with administering(kafka, request_timeout=3.0) as admin:
            responses = await admin.describe_consumer_groups([topics.sink_group])
        return any(one[2] not in ("Dead", "Empty", "") for response in responses for one in response.groups)
    except (KafkaError, OSError):
        return False
