"""Accepts a request: from the body as sent to its durable storage, the same way for HTTP and gRPC.

A body that may need much work, by its size or its number of token counts, is decompressed, decoded and converted to
messages in a thread, so that other requests are answered meanwhile. Every step is bounded (`schemas.otlp.limits`), and
the memory that it holds is charged to the budget.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from tallystream.schemas.clients import Rejected
from tallystream.schemas.connections import Connection, Signal
from tallystream.schemas.errors import InvalidBodyError, Reason, TooManyElementsError
from tallystream.schemas.otlp import Encoding, Limits
from tallystream.streams.gateway.auth import Authenticator, Credentials, Undetermined
from tallystream.streams.gateway.budget import Lease
from tallystream.streams.gateway.connections.activity import ActivityLog
from tallystream.streams.gateway.decompress import decompress
from tallystream.streams.gateway.delivery.group_commit import Delivery
from tallystream.streams.gateway.destination import ConnectionDestination, Destination
from tallystream.streams.gateway.errors import RequestRefusedError, UndecodableError
from tallystream.streams.gateway.ingest import Decoded, Messages, decode, digest_of
from tallystream.streams.gateway.message import Message
from tallystream.streams.gateway.metrics import Metrics
from tallystream.streams.gateway.quarantine import Quarantine
from tallystream.streams.gateway.quotas import Pauses, Quotas, Turns

LIGHT_BYTES: Final = 128 << 10
"""A larger body is processed in a thread, and so is a smaller one that exceeds `Destination.light_limits`."""
LIGHT_PACKED: Final = 16 << 10
"""A larger compressed body always goes to a thread, because it may expand a thousandfold."""
WORKERS: Final = 2
PARSED_COST: Final = 7
"""Memory that decoding a small body needs, as a multiple of its size; a large one is split and needs less."""
PARSED_MOST: Final = 32 << 20


@dataclass(slots=True)
class Body:
    """A request body: `raw` is the body as received, `coding` the Content-Encoding ("" for none)."""

    raw: bytes
    coding: str


class Accepted(NamedTuple):
    """The result for a body: the number of `rejected` records, and `why` the first one was rejected."""

    signal: Signal
    rejected: int
    why: str


class _Processed(NamedTuple):
    size: int
    decoded: Decoded
    built: Sequence[Message] | bytes


class Acceptance:
    """Accepts requests: call `destination` with the credentials, then `take` with the body."""

    def __init__(
        self,
        max_body_bytes: int,
        authenticator: Authenticator,
        delivery: Delivery,
        quarantine: Quarantine,
        activity: ActivityLog,
        messages: Messages,
        quotas: Quotas,
        turns: Turns,
        metrics: Metrics,
        *,
        witnessed: bool = True,
    ) -> None:
        self._witnessed = witnessed
        self._quotas = quotas
        self._pauses = Pauses()
        self._turns = turns
        self._max_body_bytes = max_body_bytes
        self._authenticator = authenticator
        self._delivery = delivery
        self._quarantine = quarantine
        self._activity = activity
        self._messages = messages
        self._metrics = metrics
        self._destinations: dict[str, ConnectionDestination] = {}
        """One for each connection that has sent anything; it is made again when the connection has changed."""
        self._workers = ThreadPoolExecutor(WORKERS, "decode")

    def close(self) -> None:
        """Stop the threads; call it when no request is in progress."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def destination(self, shown: Credentials) -> Destination:
        """Return the destination for these credentials.

        Raises:
            RequestRefusedError: 404 or 401 for invalid credentials; 429 when the connection exceeds its quota of
                requests.

        """
        admitted = self._authenticator.known(shown) or await self._authenticator.admit(shown)
        destination = (
            self._quarantine.destination(admitted) if isinstance(admitted, Undetermined) else self._known(admitted)
        )
        try:
            self._quotas.request(destination.key, destination.quota)
        except RequestRefusedError:
            await self._pauses.wait()
            raise
        return destination

    def _known(self, connection: Connection) -> Destination:
        made = self._destinations.get(connection.connection_id)
        if made is None or made.connection is not connection:
            made = ConnectionDestination(connection, self._delivery, self._messages, self._activity, self._metrics)
            self._destinations[connection.connection_id] = made
        return made

    def limit(self, destination: Destination) -> int:
        """Return the maximum size of a body in bytes, before and after decompression."""
        return self._max_body_bytes // destination.share

    async def take(
        self, body: Body, encoding: Encoding, signal: Signal | None, destination: Destination, lease: Lease
    ) -> Accepted:
        """Store the body's contents; returns once they are durable.

        Raises:
            UndecodableError: its records cannot be separated; a dead letter is written.
            RequestRefusedError: 413, it exceeds a limit; 503, all requests together do; 429, its quota is used up.
            NotDurableError: it cannot be stored now.

        """
        key, quota, size = destination.key, destination.quota, len(body.raw)
        self._quotas.received(key, quota, size)
        held = self._quotas.hold(key, quota, size)
        try:
            line = self._turns.line(key)
            if not self._turns.begin(line):
                await self._turns.wait(line)
            try:
                return await self._take(body, encoding, signal, destination, lease)
            finally:
                self._turns.done(line)
        finally:
            if held:
                self._quotas.release(key, size)

    async def _take(
        self, body: Body, encoding: Encoding, signal: Signal | None, destination: Destination, lease: Lease
    ) -> Accepted:
        limit = self.limit(destination)
        try:
            plain = self._light(body, limit)
            processed = None
            if plain is not None:
                processed = self._at_once(plain, encoding, signal, destination, body.raw, lease)
            if processed is None:
                processed = await self._process(body, encoding, signal, destination, limit, lease)
            size, decoded, built = processed
        except InvalidBodyError as exc:
            detail = f"{exc.message}; {exc.hint}" if exc.hint else exc.message
            await self._undecodable(destination, detail, body.raw)
            if isinstance(exc, TooManyElementsError):
                raise RequestRefusedError(413, detail) from None
            raise UndecodableError(detail) from None
        except UndecodableError as refused:
            await self._undecodable(destination, refused.message, body.raw)
            raise
        if decoded.logs is not None and decoded.logs.rejected:
            self._quotas.dead_letters(destination.key, destination.quota, len(decoded.logs.rejected))
        self._metrics.took(destination.provider, decoded.signal, size, decoded.records)
        if decoded.left_out:
            self._metrics.witnesses_left_out.inc(decoded.left_out)
        await destination.accept(decoded, built)
        return self._answer(decoded, destination.provider)

    async def _undecodable(self, destination: Destination, detail: str, raw: bytes) -> None:
        self._quotas.dead_letters(destination.key, destination.quota, 1)
        await destination.undecodable(detail, len(raw), digest_of(raw))
        self._metrics.dead_letters.labels(Reason.UNDECODABLE).inc()

    def _at_once(
        self,
        plain: bytes,
        encoding: Encoding,
        signal: Signal | None,
        destination: Destination,
        raw: bytes,
        lease: Lease,
    ) -> _Processed | None:
        """Process a light body; None when it turns out to need much work."""
        cost = PARSED_COST * len(plain)
        lease.take(cost)
        try:
            return self._decode(plain, encoding, signal, destination, raw, destination.light_limits)
        except TooManyElementsError:
            # that it exceeds the limits themselves is found in the thread
            return None
        finally:
            lease.give_back(cost)

    async def _process(
        self,
        body: Body,
        encoding: Encoding,
        signal: Signal | None,
        destination: Destination,
        limit: int,
        lease: Lease,
    ) -> _Processed:
        raw = body.raw
        loop = asyncio.get_running_loop()
        if body.coding:
            plain = await loop.run_in_executor(self._workers, decompress, raw, body.coding, limit)
            lease.take(len(plain))
        else:
            plain = raw
        work = partial(self._decode, plain, encoding, signal, destination, raw, destination.limits)
        cost = min(PARSED_COST * len(plain), PARSED_MOST + 2 * len(plain))
        lease.take(cost)
        try:
            return await loop.run_in_executor(self._workers, work)
        finally:
            lease.give_back(cost)

    def _decode(
        self,
        plain: bytes,
        encoding: Encoding,
        signal: Signal | None,
        destination: Destination,
        raw: bytes,
        limits: Limits,
    ) -> _Processed:
        decoded = decode(plain, encoding, signal, limits, witnessed=self._witnessed)
        return _Processed(len(plain), decoded, destination.build(decoded, raw))

    @staticmethod
    def _light(body: Body, limit: int) -> bytes | None:
        """Return a body that can be decoded at once, None when it may need much work or memory."""
        plain = body.raw
        if len(plain) > (LIGHT_PACKED if body.coding else LIGHT_BYTES):
            return None
        if body.coding:
            try:
                plain = decompress(plain, body.coding, min(limit, LIGHT_BYTES))
            except RequestRefusedError as refused:
                if refused.status == 413 and limit > LIGHT_BYTES:
                    return None
                raise
        return plain

    def _answer(self, decoded: Decoded, provider: str) -> Accepted:
        logs = decoded.logs
        if logs is None:
            return Accepted(decoded.signal, 0, "")
        inconsistent = sum("inconsistent" in event for pack in logs.packs for event in pack.events)
        if inconsistent:
            self._metrics.inconsistent.labels(provider).inc(inconsistent)
        if not logs.rejected:
            return Accepted(decoded.signal, 0, "")
        for record in logs.rejected:
            number = 1 + record.folded
            self._metrics.dead_letters.labels(record.reason).inc(number)
            if record.reason is Reason.UNRECOGNISED_USAGE:
                self._metrics.unrecognised.labels(provider).inc(number)
        return Accepted(decoded.signal, logs.lost, _why(logs.lost, logs.rejected[0]))


def _why(lost: int, first: Rejected) -> str:
    return f"{lost} usage records could not be counted, the first: {first.reason}: {first.detail}"
