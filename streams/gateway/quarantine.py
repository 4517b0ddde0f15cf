"""The quarantine: requests that cannot be authorized now, because Kafka is unavailable and the cache does not know
their id.

The client gets a 200 and may never send them again (Codex does not), so their contents are stored: normalised events
with the user's name replaced, dead letters, and the id's hash; never the body or the id. When the registry has caught
up, they are authorized as of the time they arrived, and become usage of a connection or dead letters
`unknown_connection`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import orjson
import structlog

from tallystream.schemas import calls, witness
from tallystream.schemas.clients import LogsResult, Pack, Rejected
from tallystream.schemas.clients.genai import SightingPack
from tallystream.schemas.clients.links import FoundLink
from tallystream.schemas.connections import Quota
from tallystream.schemas.errors import Reason, TallystreamError
from tallystream.schemas.otlp import LIMITS
from tallystream.streams.gateway.auth import Credentials, Undetermined, authorize
from tallystream.streams.gateway.connections.activity import ActivityLog
from tallystream.streams.gateway.connections.cache import Registry
from tallystream.streams.gateway.errors import RequestRefusedError, SpoolWriteError
from tallystream.streams.gateway.ingest import Decoded, Messages, digest_of
from tallystream.streams.gateway.message import Message
from tallystream.streams.gateway.metrics import Metrics
from tallystream.streams.gateway.spool.file import Held
from tallystream.streams.gateway.spool.spool import Spool
from tallystream.streams.service.clock import utc

RETRY = 1.0
VERSION = 1
"""Version of a row's content; rows without one are from version 0.1 and have the same format."""
MAX_RECORD = 512 << 10
"""Maximum bytes of a row that is kept in a dead letter."""
log = structlog.get_logger()


STRANGERS_SHARE: Final = 10
"""Factor by which the limits are smaller for bodies of unknown senders."""


class QuarantineDestination:
    """Stores the contents of one request."""

    provider = "unknown"
    limits = LIMITS.share(STRANGERS_SHARE)
    light_limits = limits.light()
    share = STRANGERS_SHARE
    quota: Quota | None = None
    key = "strangers"

    def __init__(self, quarantine: Quarantine, shown: Credentials, messages: Messages) -> None:
        self._quarantine = quarantine
        self._shown = shown
        self._messages = messages

    def build(self, decoded: Decoded, raw: bytes) -> bytes:
        """Return the document to store, with users' names replaced; empty when there is nothing to store."""
        logs = decoded.logs or LogsResult(decoded.records, [], [])
        if decoded.is_empty:
            return b""
        document = {
            "version": VERSION,
            "digest": digest_of(raw),
            "records": decoded.records,
            "signal": decoded.signal,
            "sightings": [calls.to_wire(pack, self._messages.user) for pack in decoded.sightings],
            "links": [list(link) for link in decoded.links],
            "witnesses": [witness.to_wire(pack) for pack in decoded.witnesses],
            "packs": [self._named(asdict(pack)) for pack in logs.packs],
            "rejected": [self._named(asdict(record)) for record in logs.rejected],
        }
        return orjson.dumps(document)

    def _named(self, part: dict[str, Any]) -> dict[str, Any]:
        whose = part["attribution"]
        if "user" in whose:
            whose["user"] = self._messages.user(whose["user"])
        return part

    async def accept(self, decoded: Decoded, built: Sequence[Message] | bytes) -> None:  # noqa: ARG002 - a protocol's
        """Keep the document; raises as `Quarantine.hold`."""
        assert isinstance(built, bytes)
        if built:
            await self._quarantine.hold(self._shown, built)

    async def undecodable(self, detail: str, size: int, digest: str) -> None:
        """Store a dead letter for a body that could not be decoded; raises as `Quarantine.hold`."""
        document = {"version": VERSION, "digest": digest, "undecodable": {"detail": detail, "size": size}}
        await self._quarantine.hold(self._shown, orjson.dumps(document))


class Quarantine:
    """`hold` stores requests while Kafka is unavailable; `run()`, as a task, authorizes them afterwards."""

    def __init__(
        self, spool: Spool, registry: Registry, messages: Messages, activity: ActivityLog, metrics: Metrics
    ) -> None:
        self._spool = spool
        self._registry = registry
        self._messages = messages
        self._activity = activity
        self._metrics = metrics
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Try to authorize the held requests."""
        self._wake.set()

    def destination(self, undetermined: Undetermined) -> QuarantineDestination:
        """Return the destination for a request with these credentials."""
        return QuarantineDestination(self, undetermined.credentials, self._messages)

    async def hold(self, shown: Credentials, document: bytes) -> None:
        """Store the contents of a request.

        Raises:
            NotDurableError: the quarantine is full or the spool fails.

        """
        await self._spool.hold(shown.ingest_sha256, shown.provider, shown.bearer_sha256, document)
        self._metrics.quarantined.inc()
        self._wake.set()

    async def run(self) -> None:
        """Authorize whenever something is held and the registry can catch up, until cancelled."""
        while True:
            if not self._spool.quarantine_level.rows:
                self._wake.clear()
                await self._wake.wait()
            try:
                done = await self._registry.refresh() and await self._authorize_some()
            except SpoolWriteError as exc:
                log.error("quarantine_not_authorized", error=str(exc))  # noqa: TRY400
                done = False
            if not done:
                await asyncio.sleep(RETRY)

    async def _authorize_some(self) -> bool:
        for row in await self._spool.held():
            await self._spool.judge(row, self._verdict(row.request))
        return True

    def _verdict(self, held: Held) -> list[Message]:
        shown = Credentials(held.ingest_sha256, held.provider, held.bearer_sha256)
        refusal = ""
        connection_id = None
        try:
            connection_id = authorize(self._registry.find(held.ingest_sha256), shown, utc(held.at)).connection_id
        except RequestRefusedError as exc:
            refusal = exc.message
        try:
            return self._messages_of(orjson.loads(held.payload), connection_id, refusal)
        except (ValueError, TypeError, KeyError, AttributeError, TallystreamError) as exc:
            return [self._unreadable(held, connection_id, exc)]

    def _unreadable(self, held: Held, connection_id: str | None, exc: Exception) -> Message:
        """Return a dead letter for a row that another version has written and this one cannot read.

        It includes the row, which has only allow-listed fields, unless the row is too large for a message.
        """
        digest = digest_of(held.payload)
        log.error("quarantined_request_unreadable", row=held.id, sha256=digest, why=type(exc).__name__)
        record: dict[str, Any] = {}
        if len(held.payload) <= MAX_RECORD:
            with contextlib.suppress(ValueError):
                found = orjson.loads(held.payload)
                record = found if isinstance(found, dict) else {}
        self._metrics.dead_letters.labels(Reason.INVALID_MESSAGE).inc()
        return self._messages.dead_letter(
            ("gateway", digest[:16], "unreadable"),
            Reason.INVALID_MESSAGE,
            f"a request in quarantine that this version cannot read: {type(exc).__name__}",
            connection_id=connection_id,
            size=len(held.payload),
            sha256=digest,
            record=record,
        )

    def _messages_of(self, document: dict[str, Any], connection_id: str | None, refusal: str) -> list[Message]:
        if (version := document.get("version", VERSION)) != VERSION:
            raise ValueError(f"version {version}")
        if undecodable := document.get("undecodable"):
            return [
                self._messages.undecodable(
                    undecodable["detail"], undecodable["size"], document["digest"], connection_id
                )
            ]
        packs = [Pack(**pack) for pack in document["packs"]]
        sightings = [calls.from_wire(pack) for pack in document.get("sightings", ())]
        witnesses = [witness.from_wire(pack) for pack in document.get("witnesses", ())]
        links = [FoundLink(*link) for link in document.get("links", ())]
        rejected = [Rejected(**(record | {"reason": Reason(record["reason"])})) for record in document["rejected"]]
        letters = self._messages.already_named().rejected(rejected, document["digest"], connection_id)
        if connection_id is None:
            strangers = self._strangers(packs, sightings, document["digest"], refusal)
            self._metrics.dead_letters.labels(Reason.UNKNOWN_CONNECTION).inc(len(strangers))
            letters += strangers
            log.warning("quarantined_request_of_nobody", records=document["records"], why=refusal)
            return letters
        self._activity.note(connection_id, document.get("signal", "logs"), document["records"])
        named = self._messages.already_named()
        usage = named.usage(packs, connection_id) + named.calls(sightings, connection_id)
        usage += named.links(links, connection_id) + named.witnesses(witnesses, connection_id)
        return usage + letters

    def _strangers(self, packs: list[Pack], sightings: list[SightingPack], digest: str, refusal: str) -> list[Message]:
        events = [(pack.client, pack.session_id, event) for pack in packs for event in pack.events]
        events += [
            (seen.client, seen.session or seen.trace_id, seen.to_wire())
            for pack in sightings
            for seen in pack.sightings
            if seen.has_usage
        ]
        return [
            self._messages.dead_letter(
                ("gateway", digest[:16], f"q{number}"),
                Reason.UNKNOWN_CONNECTION,
                f"received while Kafka was unavailable, and refused since: {refusal}",
                client=client,
                session_id=session_id,
                record=event,
            )
            for number, (client, session_id, event) in enumerate(events)
        ]
