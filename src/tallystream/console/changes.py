"""Changes by users: connections and replays. A change is made only after it was written to the audit topic."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import aiohttp
import orjson
import structlog
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from tallystream.agents.ledger.queries import console as queries
from tallystream.agents.ledger.store.database import Database
from tallystream.console import models
from tallystream.console.config import ConsoleConfig
from tallystream.console.errors import NotFoundError
from tallystream.schemas import keys
from tallystream.schemas.audit import Action, AuditEntry
from tallystream.schemas.catalogue import schema_of
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import TallystreamError
from tallystream.streams.connections.client_config import Endpoints
from tallystream.streams.connections.registry import Connections, Issued
from tallystream.streams.deadletters import replay as letters
from tallystream.streams.kafka.errors import unreachable
from tallystream.streams.kafka.producer import producing
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.service.clock import Clock, utc

log = structlog.get_logger()
MOST_LETTERS = 10_000
"""Maximum number of dead letters in one replay."""
TEST_SECONDS = 10.0


@dataclass(frozen=True)
class Actor:
    """The user who makes a change, and the address it comes from."""

    person: str
    remote: str


class Changes:
    """The changes of one deployment.

    Raises, from every method:
        UnreachableError: Kafka did not answer; the change may have been made.
    """

    def __init__(self, config: ConsoleConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._registry = Connections(config.kafka, config.topics, clock=clock, timeout=config.timeout)

    async def create(self, actor: Actor, asked: models.NewConnection) -> models.IssuedConnection:
        """Create a connection.

        Raises:
            UsageError: the name is not valid.

        """
        detail = {"provider": asked.provider, "name": asked.name or asked.provider}
        async with self._audited(actor, "connection.create", "-", detail) as done:
            issued = await self._registry.create(asked.provider, name=asked.name, bearer=asked.bearer)
            done["subject"] = issued.connection.connection_id
        return self._issued(issued)

    async def rotate(self, actor: Actor, connection_id: str, asked: models.RotateConnection) -> models.IssuedConnection:
        """Issue a new secret.

        Raises:
            UsageError: the connection does not exist or is revoked.

        """
        detail = {"grace_hours": str(asked.grace_hours)}
        async with self._audited(actor, "connection.rotate", connection_id, detail):
            return self._issued(await self._registry.rotate(connection_id, timedelta(hours=asked.grace_hours)))

    async def revoke(self, actor: Actor, connection_id: str) -> None:
        """Refuse a connection from now on.

        Raises:
            UsageError: the connection does not exist.

        """
        async with self._audited(actor, "connection.revoke", connection_id, {}):
            await self._registry.revoke(connection_id)

    async def test(self, provider: str, asked: models.ConnectionTest) -> models.ConnectionTestResult:
        """Send an empty request as a client would. Changes nothing."""
        at = Endpoints(self._config.endpoint_url, None, provider, asked.ingest_id, asked.bearer)
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TEST_SECONDS)) as http:
                headers = {"Content-Type": "application/json"} | at.authorization
                async with http.post(
                    at.url("logs"), data=b'{"resourceLogs":[]}', headers=headers, allow_redirects=False
                ) as response:
                    body = (await response.content.read(2000)).decode(errors="replace")
                    return models.ConnectionTestResult(
                        ok=response.status == 200, status=response.status, message=_said(body)
                    )
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            why = f"the gateway at {self._config.endpoint_url} does not answer: {type(exc).__name__}"
            return models.ConnectionTestResult(ok=False, status=0, message=why)

    async def replay(self, actor: Actor, found: Sequence[DeadLetter]) -> models.ReplayResult:
        """Send dead letters that would now be counted to the usage topic again."""
        into = letters.Into(own=True, lateness=self._config.lateness)
        rows, skipped = [], Counter[str]()
        now = self._clock.now_ns()
        for letter in found:
            prepared = letters.prepare(letter, into, now)
            if isinstance(prepared, str):
                skipped[f"{letter.reason.value}: {prepared}"] += 1
            else:
                rows.append(prepared)
        if rows:
            async with self._audited(actor, "deadletters.replay", "-", {"letters": str(len(rows))}):
                await letters.send(self._config.kafka, self._config.topics, rows)
        return models.ReplayResult(replayed=len(rows), skipped=dict(skipped))

    def _issued(self, issued: Issued) -> models.IssuedConnection:
        one = issued.connection
        at = Endpoints(self._config.endpoint_url, None, one.provider, issued.ingest_id, issued.bearer)
        return models.IssuedConnection(
            connection_id=one.connection_id,
            provider=one.provider,
            name=one.name,
            ingest_id=issued.ingest_id,
            bearer=issued.bearer,
            base_url=at.base_url,
            logs_url=at.url("logs"),
            metrics_url=at.url("metrics"),
            traces_url=at.url("traces"),
            headers=at.headers,
            config=at.config,
            paste_into=at.paste_into,
        )

    @asynccontextmanager
    async def _audited(
        self, actor: Actor, action: Action, subject: str, detail: Mapping[str, str]
    ) -> AsyncIterator[dict[str, str]]:
        """Write the request to the audit topic, make the change, and write its result."""
        entry = AuditEntry(
            id=uuid.uuid4().hex,
            at=utc(self._clock.now_ns()),
            person=actor.person,
            remote=actor.remote,
            action=action,
            subject=subject,
            outcome="asked",
            detail=dict(detail),
        )
        await self._write(entry)
        done: dict[str, str] = {}
        try:
            yield done
        except TallystreamError as exc:
            await self._write(replace_entry(entry, "failed", {"why": exc.code}, {}, utc(self._clock.now_ns())))
            raise
        await self._write(replace_entry(entry, "done", {}, done, utc(self._clock.now_ns())))
        log.info("console_change", action=action, subject=done.get("subject", subject), person=actor.person)

    async def _write(self, entry: AuditEntry) -> None:
        config = self._config
        await ensure(config.kafka, (config.topics.console_audit,), config.timeout)
        try:
            async with producing(config.kafka) as producer:
                await producer.send_and_wait(
                    config.topics.console_audit.name,
                    entry.model_dump_json().encode(),
                    key=keys.join(entry.subject),
                    headers=schema_of(AuditEntry).headers,
                )
        except (KafkaError, OSError) as exc:
            raise unreachable(config.kafka, exc, "take the audit entry") from exc


def replace_entry(
    entry: AuditEntry, outcome: str, more: Mapping[str, str], done: Mapping[str, str], at: object
) -> AuditEntry:
    """Return the audit entry with the result."""
    return entry.model_copy(
        update={
            "outcome": outcome,
            "detail": {**entry.detail, **more},
            "subject": done.get("subject", entry.subject),
            "at": at,
        }
    )


def chosen_letters(database: Database, asked: models.ReplayRequest) -> list[DeadLetter]:
    """Return the requested dead letters.

    Raises:
        NotFoundError: one of them does not exist.

    """
    if asked.sources:
        texts = []
        for source in asked.sources:
            text = queries.dead_letter(database, source)
            if text is None:
                raise NotFoundError(
                    f"no dead letter has the source {source!r}", "it may have expired: load the page again"
                )
            texts.append(text)
    else:
        texts = queries.dead_letters(database, MOST_LETTERS, reason=asked.reason)
    found = []
    for text in texts:
        try:
            found.append(DeadLetter.model_validate_json(text))
        except ValidationError:
            continue
    return found


def _said(body: str) -> str:
    try:
        said = orjson.loads(body).get("message", "")
    except (ValueError, AttributeError):
        said = body
    return said[:300] if isinstance(said, str) else ""
