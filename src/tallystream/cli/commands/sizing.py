"""`tallystream sizing`: what a number of agents needs."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

import typer

from tallystream.cli.options import JsonOption, emit_json
from tallystream.cli.output.consoles import console
from tallystream.schemas.errors import UsageError


def sizing(
    agents: Annotated[int, typer.Option("--agents", metavar="N", help="Agents that work at one time.")],
    responses: Annotated[
        float, typer.Option("--responses", metavar="N", help="Billed model responses a minute of a working agent.")
    ] = 6.0,
    sessions: Annotated[float, typer.Option("--sessions", metavar="N", help="Sessions of an agent a day.")] = 8.0,
    hours: Annotated[float, typer.Option("--hours", metavar="N", help="Hours a day in which agents work.")] = 8.0,
    replication: Annotated[int, typer.Option("--replication", metavar="N", help="Replicas of each Kafka topic.")] = 3,
    core_hour: Annotated[str, typer.Option("--core-hour", metavar="USD", help="Price of a core for an hour.")] = "0.04",
    gigabyte_month: Annotated[
        str, typer.Option("--gigabyte-month", metavar="USD", help="Price of a gigabyte of disk for a month.")
    ] = "0.10",
    json: JsonOption = False,
) -> None:
    """Show the cores, memory, partitions and disk that a number of agents needs, and what a million responses cost.

    The costs of a request, an event and a row were measured; docs/operations/sizing.md says how, and names the limits.
    """
    from dataclasses import asdict
    from decimal import InvalidOperation

    from tallystream.sizing import AgentLoad, MachinePrices, size

    try:
        prices = MachinePrices(Decimal(core_hour), Decimal(gigabyte_month))
        found = size(AgentLoad(agents, responses, sessions, hours, replication), prices)
    except (ValueError, InvalidOperation) as exc:
        raise UsageError(f"a number does not fit: {exc}", "all numbers are above 0, and prices are decimals") from None
    if json:
        emit_json(asdict(found))
        return
    written = found.kafka_write_bytes_per_second / 1e6
    rows = (
        ("events", f"{found.events_per_second:,.0f} a second"),
        ("gateway", f"{found.gateway_cores:.2f} cores, processes: {found.gateways:,}"),
        ("workers", f"{found.worker_cores:.2f} cores, processes: {found.workers:,}"),
        ("memory of both", f"{found.memory_bytes / 2**30:,.1f} GiB"),
        ("partitions", f"{found.partitions:,} of the usage topic; they cannot be changed later"),
        (
            "brokers",
            f"{found.brokers:,}, which write {written:,.1f} MB a second together",
        ),
        ("disk of the brokers", f"{found.kafka_disk_bytes / 1e9:,.1f} GB when retention has begun to remove rows"),
        ("session-hours", f"{found.session_hours_per_day:,} a day"),
        ("calls to Port", f"{found.port_calls_per_minute:,.0f} a minute, if every session changes every minute"),
        ("cost", f"${found.usd_per_million_responses:,} per million responses"),
    )
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        console.print(f"{name:{width}}  {text}")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sizing")(sizing)
