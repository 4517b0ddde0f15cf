"""`tallystream connections create | list | test | rotate | revoke`: manages who may send telemetry."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from tallystream.cli.options import DataDir, JsonOption, KafkaOption, cluster, emit_json, settings_from
from tallystream.cli.output.connection_table import entry_document, issued_document, listing_table
from tallystream.cli.output.consoles import console, err_console
from tallystream.cli.output.text import stamp, visible
from tallystream.schemas.errors import MismatchError, UnreachableError, UsageError

if TYPE_CHECKING:
    from tallystream.schemas.connections import Connection, Quota, Signal
    from tallystream.settings.settings import Settings
    from tallystream.streams.connections.client_config import Endpoints
    from tallystream.streams.connections.registry import Connections, Issued, Listing, Synced

HELP = """
Manage who may send telemetry, and see when they last did.

A connection lets a team, machine or CI send telemetry. Its id (codex-7f3a) is public and appears in rows and labels.
Its ingest id is the secret part of its URLs and is shown once. Anyone who has the URL can send, but not read.
"""

ConnectionId = Annotated[
    str,
    typer.Argument(metavar="CONNECTION", help="A connection id, as `connections list` shows it.", show_default=False),
]
EndpointUrl = Annotated[
    str | None,
    typer.Option(
        "--endpoint-url",
        envvar="TALLYSTREAM_ENDPOINT_URL",
        metavar="URL",
        help="URL at which clients reach the gateway, if it is not on this machine.",
        show_default="the gateway `tallystream up` runs",
    ),
]


def create(
    provider: Annotated[
        str,
        typer.Argument(
            metavar="PROVIDER",
            help="codex, claude, gemini, copilot, vscode, qwen, opencode, cline, litellm, collector, or genai"
            " (any program).",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="A name for people: laptop, ci, team-a.", show_default="the provider")
    ] = None,
    ingest_id: Annotated[
        str | None,
        typer.Option("--id", help="Use this secret instead of a random one, for example to keep URLs that are in use."),
    ] = None,
    bearer: Annotated[
        bool, typer.Option("--bearer", help="Also require a bearer secret, which is generated and shown once.")
    ] = False,
    quota: Annotated[
        str | None,
        typer.Option(
            "--quota",
            metavar="NAME=N,...",
            help="Limits of this connection; requests above them get 429: requests, bytes, dead_letters (per second),"
            " held_bytes; 0: unlimited.",
            show_default="the gateway's settings",
        ),
    ] = None,
    endpoint_url: EndpointUrl = None,
    json: JsonOption = False,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
) -> None:
    """Create a connection and print what to paste into the client."""
    from tallystream.cli.output.progress import run

    settings = settings_from(data_dir, kafka)
    registry = _registry(settings)
    limits = None if quota is None else _quota(quota)
    issued = run(registry.create(provider, name=name, ingest_id=ingest_id, bearer=bearer, quota=limits))
    _show_issued(settings, issued, endpoint_url, json=json)


def _quota(text: str) -> Quota:
    """Parse a quota such as `requests=100,bytes=8388608`.

    Raises:
        UsageError: a name is unknown or a value is not a number.

    """
    from pydantic import ValidationError

    from tallystream.schemas.connections import Quota

    pairs = dict(part.strip().partition("=")[::2] for part in text.split(","))
    try:
        return Quota.model_validate_strings(pairs)
    except ValidationError:
        names = ", ".join(Quota.model_fields)
        raise UsageError(
            f"--quota {text!r} is not a valid quota", f"use NAME=NUMBER,... with the names {names}"
        ) from None


def rotate(
    connection_id: ConnectionId,
    grace: Annotated[str, typer.Option("--grace", help="How long the old ingest id still works: 0s, 24h, 7d.")] = "7d",
    endpoint_url: EndpointUrl = None,
    json: JsonOption = False,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
) -> None:
    """Issue a new ingest id. The old one works during the grace period, so that clients can be changed one by one."""
    from tallystream.cli.output.progress import run
    from tallystream.cli.output.times import parse_duration

    settings = settings_from(data_dir, kafka)
    period = parse_duration(grace, "--grace")
    issued = run(_registry(settings).rotate(connection_id, period))
    _show_issued(settings, issued, endpoint_url, json=json)


def revoke(
    connection_id: ConnectionId, json: JsonOption = False, data_dir: DataDir = None, kafka: KafkaOption = None
) -> None:
    """Refuse a connection from now on. Its cost rows are kept."""
    from tallystream.cli.output.progress import run

    connection = run(_registry(settings_from(data_dir, kafka)).revoke(connection_id))
    at = connection.revoked_at
    assert at is not None
    if json:
        emit_json({"connection_id": connection.connection_id, "state": "revoked", "revoked_at": stamp(at)})
        return
    console.print(f"{connection.connection_id} is revoked since {stamp(at)}: gateways refuse it within seconds.")
    console.print("Its cost rows are kept.", style="dim")


def list_(json: JsonOption = False, data_dir: DataDir = None, kafka: KafkaOption = None) -> None:
    """List the connections with the time each signal was last received. Shows no secrets."""
    from tallystream.cli.output.progress import run

    settings = settings_from(data_dir, kafka)
    listing, synced = run(_both(_registry(settings)))
    now = _now()
    for key in listing.unreadable:
        err_console.print(Text(f"a record of the registry cannot be read: {visible(key)}", style="yellow"))
    if json:
        emit_json(
            {
                "as_of": stamp(now),
                "connections": [entry_document(one, synced, now) for one in listing.connections.values()],
            }
        )
    elif not listing.connections:
        console.print("No connections yet. Create one: [bold]tallystream connections create codex --name laptop[/]")
    else:
        console.print(listing_table(listing, synced, now))


def check(
    which: Annotated[
        str, typer.Argument(metavar="ID", help="A connection id, or the ingest id itself.", show_default=False)
    ],
    ingest_id: Annotated[
        str | None, typer.Option("--id", help="The ingest id to test, when ID is a connection id.")
    ] = None,
    bearer: Annotated[
        str | None, typer.Option("--bearer", envvar="TALLYSTREAM_BEARER", help="The connection's bearer secret.")
    ] = None,
    endpoint_url: EndpointUrl = None,
    json: JsonOption = False,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
) -> None:
    """Send an empty request as a client would, and report the answer. Exits with 4 if it was refused.

    With only a connection id no request can be sent, because its secret is not stored. The command then reports when
    the connection last sent.
    """
    from tallystream.cli.output.progress import run
    from tallystream.streams.connections.client_config import Endpoints

    settings = settings_from(data_dir, kafka)
    listing, synced = run(_both(_registry(settings)))
    secret, connection = ingest_id, None
    if which in listing.connections:
        connection = listing.get(which)
    elif ingest_id is None:
        secret = which
    else:
        listing.get(which)
    if secret is None and connection is not None:
        _show_last(connection, synced, json=json)
        return
    assert secret is not None
    owner = listing.by_ingest_id(secret)
    if connection is not None and (owner is None or owner.connection_id != connection.connection_id):
        raise MismatchError(
            f"this ingest id was not issued for {connection.connection_id}",
            "`tallystream connections rotate` issues a new one",
        )
    provider = owner.provider if owner is not None else "codex"
    at = Endpoints(_gateway(settings, endpoint_url), None, provider, secret, bearer)
    status, said = _post_empty(at)
    name = owner.connection_id if owner is not None else None
    if json:
        emit_json({"connection_id": name, "ok": status == 200, "status": status, "message": said})
        if status != 200:
            raise typer.Exit(MismatchError.exit_code)
        return
    if status != 200:
        raise MismatchError(
            f"the gateway at {at.http} answered {status}: {visible(said) or 'no reason given'}", _why(status, owner)
        )
    console.print(f"[green]works[/]: the gateway at {at.http} accepts logs for {name or 'this ingest id'}.")


def register(app: typer.Typer) -> None:
    """Add `connections` and its commands."""
    group = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="markdown")
    group.command("create")(create)
    group.command("list")(list_)
    group.command("test")(check)
    group.command("rotate")(rotate)
    group.command("revoke")(revoke)
    app.add_typer(group, name="connections")


def _registry(settings: Settings) -> Connections:
    from tallystream.streams.connections.registry import Connections

    return Connections(cluster(settings), settings.topics())


async def _both(registry: Connections) -> tuple[Listing, dict[str, dict[Signal, Synced]]]:
    return await registry.list(), await registry.synced()


def _now() -> datetime:
    from tallystream.streams.service.clock import SystemClock, utc

    return utc(SystemClock().now_ns())


def _endpoints(settings: Settings, endpoint_url: str | None) -> tuple[str, str | None, bool]:
    """Return (http, grpc, known) of the gateway for this cluster. `known` is False if the URLs are assumed."""
    from tallystream.cli.options import read_run
    from tallystream.streams.connections.client_config import DEFAULT_HTTP

    if endpoint_url is not None:
        return endpoint_url.rstrip("/"), None, True
    try:
        found = read_run(settings.data_dir)
    except UnreachableError:
        return DEFAULT_HTTP, None, False
    if settings.kafka is not None and found.kafka != settings.kafka:
        return DEFAULT_HTTP, None, False
    return found.http, found.grpc, True


def _gateway(settings: Settings, endpoint_url: str | None) -> str:
    http, _, known = _endpoints(settings, endpoint_url)
    if not known:
        raise UnreachableError("no gateway runs here", "name its URL: --endpoint-url http://HOST:4318")
    return http


def _show_issued(settings: Settings, issued: Issued, endpoint_url: str | None, *, json: bool) -> None:
    """Print the created connection. This is the only time that its secrets are shown."""
    from tallystream.streams.connections.client_config import Endpoints

    http, grpc, known = _endpoints(settings, endpoint_url)
    connection = issued.connection
    at = Endpoints(http, grpc, connection.provider, issued.ingest_id, issued.bearer)
    if not known:
        err_console.print(
            f"The gateway's address is not known here: the URLs say {http}. Give --endpoint-url.", style="yellow"
        )
    if json:
        emit_json(issued_document(connection.connection_id, at))
        return
    console.print(Text(f"{connection.connection_id}  ({visible(connection.name)})", style="bold"))
    console.print("The ingest id in these URLs is a secret. It is not stored, and is shown only this once.\n")
    for label, url in (("logs", at.url("logs")), ("metrics", at.url("metrics")), ("traces", at.url("traces"))):
        console.print(Text(f"  {label:<8} {url}"), soft_wrap=True)
    console.print(Text(f"  {'base URL':<8} {at.base_url}"), soft_wrap=True)
    console.print(f"\nPaste into {at.paste_into}:\n")
    console.print(Text(at.config), soft_wrap=True)
    if connection.bearer_sha256 and issued.bearer is None:
        console.print("Its bearer secret does not change: rotating replaces only the ingest id.\n", style="dim")
    until = max((key.expires_at for key in connection.ingest if key.expires_at), default=None)
    if until is not None:
        console.print(f"The old ingest id works until {stamp(until)}.\n")
    console.print("Then run the client, and see what it cost: [bold]tallystream cost sessions[/]")


def _show_last(connection: Connection, synced: Mapping[str, Mapping[Signal, Synced]], *, json: bool) -> None:
    now = _now()
    entry = entry_document(connection, synced, now)
    if json:
        emit_json(
            {"connection_id": connection.connection_id, "ok": None, "status": None, "message": "not tested"} | entry
        )
        return
    last = entry["last_synced_at"]
    console.print(f"{connection.connection_id} is {entry['state']}; last synced: {last or 'never'}")
    console.print(
        "A test request needs the ingest id, which is not stored:"
        f" `tallystream connections test {connection.connection_id} --id INGEST_ID`",
        style="dim",
        soft_wrap=True,
    )


def _post_empty(at: Endpoints) -> tuple[int, str]:
    """Send an empty logs request; return the status and the message of the gateway."""
    import orjson

    from tallystream.supervisor.http_client import request

    status, body = request("POST", at.url("logs"), b'{"resourceLogs":[]}', at.authorization)
    try:
        said = orjson.loads(body).get("message", "")
    except (ValueError, AttributeError):
        said = body[:200].decode(errors="replace")
    return status, said if isinstance(said, str) else ""


def _why(status: int, owner: Connection | None) -> str:
    if owner is not None and owner.revoked_at is not None:
        return f"{owner.connection_id} was revoked: `tallystream connections create {owner.provider}` creates a new one"
    return {
        401: "the connection needs its bearer secret: --bearer SECRET",
        404: "no connection has this ingest id, or it was rotated: see `tallystream connections list`",
        503: "the gateway cannot accept requests now: see `tallystream status`",
    }.get(status, "`tallystream status` shows whether the gateway is well")
