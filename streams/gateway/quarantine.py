"""Requests whose ingest id nobody can judge, because Kafka is away and the cache does not know it.

Their client is answered 200 and may never send them again (Codex does not), so they are kept: normalised events with
the user's name replaced, dead letters, and the id's hash; never a body, never the id. When the registry has caught up
they are judged as of the time they came: usage of a connection, or dead letters `unknown_connection`.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

import orjson
import structlog

from tallystream.schemas.clients import Pack, Rejected
from tallystream.schemas.errors import Reason
from tallystream.streams.gateway.auth import Credentials, Unjudged, judge
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
log = structlog.get_logger()


class Quarantine:
    """`hold` requests while Kafka is away; run `run()` as a task, which judges them once it is back."""

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
        """Judge what is held, if the registry can."""
        self._wake.set()

    async def hold(self, unjudged: Unjudged, decoded: Decoded, raw: bytes) -> None:
        """Keep a decoded request.

        Raises:
            NotDurableError: the quarantine is full or the spool fails.

        """
        if decoded.logs is None or not (decoded.logs.packs or decoded.logs.rejected):
            return
        packs = [asdict(pack) for pack in decoded.logs.packs]
        for pack in packs:
            if "user" in pack["attribution"]:
                pack["attribution"]["user"] = self._messages.user(pack["attribution"]["user"])
        await self._hold(
            unjudged.credentials,
            {
                "digest": digest_of(raw),
                "records": decoded.records,
                "packs": packs,
                "rejected": [asdict(record) for record in decoded.logs.rejected],
            },
        )

    async def hold_undecodable(self, unjudged: Unjudged, detail: str, raw: bytes) -> None:
        """Keep that there was a body that could not be decoded.

        Raises:
            NotDurableError: as `hold`.

        """
        await self._hold(
            unjudged.credentials, {"digest": digest_of(raw), "undecodable": {"detail": detail, "size": len(raw)}}
        )

    async def _hold(self, shown: Credentials, document: dict[str, Any]) -> None:
        await self._spool.hold(shown.ingest_sha256, shown.provider, shown.bearer_sha256, orjson.dumps(document))
        self._metrics.quarantined.inc()
        self._wake.set()

    async def run(self) -> None:
        """Judge whenever something is held and the registry can catch up, until cancelled."""
        while True:
            if not self._spool.quarantine_level.rows:
                self._wake.clear()
                await self._wake.wait()
            try:
                done = await self._registry.refresh() and await self._judge_some()
            except SpoolWriteError as exc:
                log.error("quarantine_not_judged", error=str(exc))  # noqa: TRY400
                done = False
            if not done:
                await asyncio.sleep(RETRY)

    async def _judge_some(self) -> bool:
        for request in await self._spool.held():
            await self._spool.judge(request, self._verdict(request))
        return True

    def _verdict(self, held: Held) -> list[Message]:
        document = orjson.loads(held.payload)
        shown = Credentials(held.ingest_sha256, held.provider, held.bearer_sha256)
        refusal = ""
        connection_id = None
        try:
            connection_id = judge(self._registry.find(held.ingest_sha256), shown, utc(held.at)).connection_id
        except RequestRefusedError as exc:
            refusal = exc.message
        if undecodable := document.get("undecodable"):
            return [
                self._messages.undecodable(
                    undecodable["detail"], undecodable["size"], document["digest"], connection_id
                )
            ]
        packs = [Pack(**pack) for pack in document["packs"]]
        rejected = [Rejected(**(record | {"reason": Reason(record["reason"])})) for record in document["rejected"]]
        letters = self._messages.rejected(rejected, document["digest"], connection_id)
        if connection_id is None:
            letters += self._strangers(packs, document["digest"], refusal)
            self._metrics.dead_letters.labels(Reason.UNKNOWN_CONNECTION).inc(sum(len(pack.events) for pack in packs))
            log.warning("quarantined_request_of_nobody", records=document["records"], why=refusal)
            return letters
        self._activity.note(connection_id, "logs", document["records"])
        return self._messages.already_named().usage(packs, connection_id) + letters

    def _strangers(self, packs: list[Pack], digest: str, refusal: str) -> list[Message]:
        events = [(pack, event) for pack in packs for event in pack.events]
        return [
            self._messages.dead_letter(
                ("gateway", digest[:16], f"q{number}"),
                Reason.UNKNOWN_CONNECTION,
                f"sent while Kafka was away; judged since: {refusal}",
                client=pack.client,
                session_id=pack.session_id,
                record=event,
            )
            for number, (pack, event) in enumerate(events)
        ]
