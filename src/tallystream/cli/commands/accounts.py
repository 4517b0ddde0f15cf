"""`tallystream accounts`: which provider account pays for which connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tallystream.cli.options import DataDir, JsonOption, KafkaOption, cluster, emit_json, settings_from
from tallystream.cli.output.consoles import console
from tallystream.schemas.errors import UsageError

if TYPE_CHECKING:
    from tallystream.agents.reconciliation.suggest import Suggestion
    from tallystream.settings.settings import Settings

HELP = """
Map connections to the provider accounts that pay for them, so that each account's bill is reconciled.

A connection may use several keys, and a key may serve several connections; those linked in this way are reconciled
together. Until a provider has a mapping, all of its usage is one scope.
"""
ConnectionId = Annotated[
    str, typer.Argument(metavar="CONNECTION", help="The connection's public id, such as codex-7f3a.")
]


def map_connection(
    connection: ConnectionId,
    key: Annotated[
        str | None, typer.Option("--key", metavar="ID", help="Id of the API key at the provider, never the key itself.")
    ] = None,
    project: Annotated[
        str | None, typer.Option("--project", metavar="ID", help="OpenAI project or Anthropic workspace: all its keys.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Paid by a subscription, so on no API bill.")] = False,
    provider: Annotated[
        str | None, typer.Option("--provider", help="openai or anthropic.", show_default="by the connection's client")
    ] = None,
    json: JsonOption = False, data_dir: DataDir = None, kafka: KafkaOption = None,
) -> None:  # fmt: skip
    """Map a connection to a key, to a project or workspace, or to a plan."""
    from pydantic import ValidationError

    from tallystream.cli.output.progress import run
    from tallystream.schemas.billing.accounts import PROVIDERS, AccountLink
    from tallystream.streams.connections.accounts import Accounts
    from tallystream.streams.service.clock import SystemClock, utc

    if sum((key is not None, project is not None, plan)) != 1:
        raise UsageError(
            "name exactly one of a key, a project or a plan to map the connection to", "use --key, --project or --plan"
        )
    settings = settings_from(data_dir, kafka)
    owner = provider or run(_provider_of(settings, connection))
    if owner not in PROVIDERS:
        raise UsageError(f"bills of {owner} are not supported", f"--provider takes {' or '.join(PROVIDERS)}")
    try:
        link = AccountLink.model_validate(
            {
                "connection_id": connection, "provider": owner, "billing": "plan" if plan else "api",
                "project_id": project, "api_key_id": key, "mapped_at": utc(SystemClock().now_ns()),
            }
        )  # fmt: skip
    except ValidationError as exc:
        raise UsageError(str(exc.errors(include_url=False, include_input=False)[0]["msg"]), "see --help") from None
    run(Accounts(cluster(settings), settings.topics()).add(link))
    if json:
        emit_json(link.model_dump(mode="json"))
    else:
        console.print(f"{connection} is now paid by {_said(link.model_dump())} of {owner}.", markup=False)


async def _provider_of(settings: Settings, connection: str) -> str:
    """Return the provider whose models a connection's client uses.

    Raises:
        UsageError: the connection does not exist.

    """
    from tallystream.streams.connections.registry import Connections

    owners = {"codex": "openai", "claude": "anthropic", "gemini": "google"}
    return owners[(await Connections(cluster(settings), settings.topics()).list()).get(connection).provider]


def unmap(
    connection: ConnectionId, json: JsonOption = False, data_dir: DataDir = None, kafka: KafkaOption = None
) -> None:
    """Remove all mappings of a connection."""
    from tallystream.cli.output.progress import run
    from tallystream.streams.connections.accounts import Accounts

    settings = settings_from(data_dir, kafka)
    links = run(Accounts(cluster(settings), settings.topics()).remove(connection))
    if json:
        emit_json({"removed": [link.model_dump(mode="json") for link in links]})
    else:
        console.print(f"{connection} is no longer mapped.", markup=False)


def list_links(json: JsonOption = False, data_dir: DataDir = None, kafka: KafkaOption = None) -> None:
    """Show the mappings."""
    from rich import box
    from rich.table import Table

    from tallystream.cli.output.progress import run
    from tallystream.cli.output.text import visible
    from tallystream.streams.connections.accounts import Accounts

    settings = settings_from(data_dir, kafka)
    links = run(Accounts(cluster(settings), settings.topics()).all())
    if json:
        emit_json({"links": [link.model_dump(mode="json") for link in links]})
        return
    if not links:
        console.print(
            "No mappings: each provider is one scope, `all`. `tallystream accounts map --help` shows how to add one."
        )
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("Connection", "Provider", "Paid by"):
        table.add_column(name)
    for link in links:
        table.add_row(visible(link.connection_id), link.provider, visible(_said(link.model_dump())))
    console.print(table)


def suggest(json: JsonOption = False, data_dir: DataDir = None, kafka: KafkaOption = None) -> None:
    """Suggest keys for connections by comparing their tokens hour by hour. Changes no mapping."""
    from tallystream.cli.output.progress import run

    found = run(_suggestions(settings_from(data_dir, kafka)))
    if json:
        rows = [
            {
                "connection_id": one.connection_id, "api_key_id": one.api_key_id, "project_id": one.project_id,
                "match": f"{float(one.match):.4f}", "hours": one.hours,
            }
            for one in found
        ]  # fmt: skip
        emit_json({"suggestions": rows})
        return
    if not found:
        console.print("No key's hourly usage matches a connection's. Hourly usage by key is polled with an admin key.")
    for one in found:
        console.print(
            f"tallystream accounts map {one.connection_id} --key {one.api_key_id}"
            f"    # {float(one.match):.0%} of the tokens in the same {one.hours} hours",
            markup=False, soft_wrap=True,
        )  # fmt: skip


async def _suggestions(settings: Settings) -> list[Suggestion]:
    from tallystream.agents.reconciliation.suggest import suggest as correlate
    from tallystream.agents.reconciliation.suggest_input import Collected
    from tallystream.streams.kafka.reader import TopicReader

    collected = Collected()
    topics = settings.topics()
    for topic, take in ((topics.openai_records.name, collected.record), (topics.session_hour_rows.name, collected.row)):
        async with TopicReader(cluster(settings), topic) as reader:
            async for _, records in reader.batches():
                for message in records:
                    take(message.key, message.value)
    return correlate(collected.connections(), collected.keys(), collected.projects_of)


def _said(link: dict[str, Any]) -> str:
    if link["billing"] == "plan":
        return "a plan"
    return f"key {link['api_key_id']}" if link["api_key_id"] else f"project {link['project_id']}"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="markdown")
    group.command("map")(map_connection)
    group.command("list")(list_links)
    group.command("unmap")(unmap)
    group.command("suggest")(suggest)
    app.add_typer(group, name="accounts")
