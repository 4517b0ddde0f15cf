"""Connections as documents and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from tallystream.cli.output.text import ago, stamp, visible

if TYPE_CHECKING:
    from tallystream.schemas.connections import Connection, Signal
    from tallystream.streams.connections.client_config import Endpoints
    from tallystream.streams.connections.registry import Listing, Synced


def issued_document(connection_id: str, at: Endpoints) -> dict[str, Any]:
    """Return what `create --json` and `rotate --json` print."""
    return {
        "connection_id": connection_id,
        "ingest_id": at.ingest_id,
        "base_url": at.base_url,
        "logs_url": at.url("logs"),
        "metrics_url": at.url("metrics"),
        "traces_url": at.url("traces"),
        "grpc": at.grpc,
        "headers": at.headers,
        "config": at.config,
    }


def entry_document(one: Connection, synced: Mapping[str, Mapping[Signal, Synced]], now: datetime) -> dict[str, Any]:
    """Return a connection as `list --json` prints it, without its secrets or their hashes."""
    from tallystream.streams.connections.registry import SIGNALS, old_until, state_of

    signals = synced.get(one.connection_id, {})
    until = old_until(one, now)
    newest = max((signal.last_synced_at for signal in signals.values()), default=None)
    return {
        "connection_id": one.connection_id,
        "provider": one.provider,
        "name": one.name,
        "created_at": stamp(one.created_at),
        "state": state_of(one, now),
        "old_id_until": stamp(until) if until and one.revoked_at is None else None,
        "revoked_at": stamp(one.revoked_at) if one.revoked_at else None,
        "bearer": one.bearer_sha256 is not None,
        "last_synced_at": stamp(newest) if newest else None,
        "last_synced": {name: stamp(signals[name].last_synced_at) if name in signals else None for name in SIGNALS},
        "requests": {name: signals[name].requests if name in signals else 0 for name in SIGNALS},
        "records": {name: signals[name].records if name in signals else 0 for name in SIGNALS},
    }


def listing_table(listing: Listing, synced: Mapping[str, Mapping[Signal, Synced]], now: datetime) -> RenderableType:
    """Return the connections as a table for people."""
    from rich import box
    from rich.table import Table

    from tallystream.streams.connections.registry import SIGNALS, state_of

    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        caption="Logs, metrics, traces: time since each was last received.",
        caption_justify="left",
    )
    for column in ("Connection", "Name", "Created", "State", *(name.capitalize() for name in SIGNALS)):
        table.add_column(column, overflow="fold", no_wrap=column != "Name")
    table.add_column("Requests", justify="right")
    styles = {"active": "green", "rotating": "yellow", "revoked": "red"}
    for one in listing.connections.values():
        signals = synced.get(one.connection_id, {})
        state = state_of(one, now)
        table.add_row(
            one.connection_id,
            Text(visible(one.name)),
            f"{one.created_at:%Y-%m-%d}",
            Text(state, style=styles[state]),
            *(ago(signals[name].last_synced_at, now) if name in signals else "never" for name in SIGNALS),
            f"{sum(signal.requests for signal in signals.values()):,}",
        )
    return table
