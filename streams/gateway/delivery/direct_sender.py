"""Sends a record batch in the call that hands it over, when nothing has to be waited for.

aiokafka (0.14) passes a batch from task to task: through `send_batch`, the loop of the sender, a task for the request,
a wait for the answer with a timer of its own, a shield around the batch's future. Each step is a turn of the event
loop, and requests and answers are put together field by field. For a batch of one small message that takes longer than
everything else about it. Here the request is packed and written at once, and its answer settles the batch.

Everything that decides about order and copies is still aiokafka's: the batch, its sequence number, one request at a
time for each broker and partition, and what is done about an error. What is not the usual case is left to it: a
partition with an unsent batch or without a leader, a broker that is not connected or has not answered the last request,
and every answer that is not a plain success.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.client import ConnectionGroup
from aiokafka.conn import CloseReason
from aiokafka.errors import RequestTimedOutError
from aiokafka.producer.message_accumulator import BatchBuilder, MessageBatch
from aiokafka.producer.sender import Sender, SendProduceReqHandler

from tallystream.streams.gateway.message import Place

Settled = Callable[["asyncio.Future[object]"], None]
PRODUCE: Final = 0
VERSION: Final = 7
"""Version of the Produce request (https://kafka.apache.org/protocol.html#The_Messages_Produce) that is packed here: the
newest that aiokafka knows. A broker that does not know it gets aiokafka's own request."""
_HEADER: Final = struct.Struct(">hhih")
_BODY: Final = struct.Struct(">hhii")
_INT16: Final = struct.Struct(">h")
_INT32: Final = struct.Struct(">i")
_PARTITION: Final = struct.Struct(">ii")
_OUTCOME: Final = struct.Struct(">ihqqq")


class _Batch(MessageBatch):  # type: ignore[misc]
    """A batch that tells at once when its outcome is known, instead of in the event loop's next turn."""

    def __init__(self, place: Place, builder: BatchBuilder, ttl: float, settled: Settled) -> None:
        super().__init__(place, builder, ttl, 0)
        self._settled = settled

    def done(self, *args: Any, **named: Any) -> None:
        super().done(*args, **named)
        self._settled(self.future)

    def done_noack(self) -> None:
        super().done_noack()
        self._settled(self.future)

    def failure(self, exception: BaseException) -> None:
        super().failure(exception)
        self._settled(self.future)


class ProduceAnswer:
    """The answer to a Produce request, as aiokafka's handler of errors expects it.

    `topics`: of each topic its partitions: number, error, first offset, append time, first offset of the partition.
    """

    __slots__ = ("topics",)
    API_VERSION = VERSION

    def __init__(self, topics: list[tuple[str, list[tuple[Any, ...]]]]) -> None:
        self.topics = topics

    @classmethod
    def decode(cls, data: BytesIO) -> ProduceAnswer:
        """Read an answer without its header."""
        raw = data.read()
        (count,) = _INT32.unpack_from(raw, 0)
        at = 4
        topics = []
        for _ in range(count):
            (length,) = _INT16.unpack_from(raw, at)
            at += 2 + length
            name = raw[at - length : at].decode()
            (number,) = _INT32.unpack_from(raw, at)
            at += 4
            partitions = [_OUTCOME.unpack_from(raw, at + 30 * one) for one in range(number)]
            at += 30 * number
            topics.append((name, partitions))
        return cls(topics)


class PackedRequest:
    """A Produce request as bytes, in the shape of a request that aiokafka's connection sends."""

    __slots__ = ("_body", "correlation_id")
    RESPONSE_TYPE = ProduceAnswer

    def __init__(self, acks: int, timeout_ms: int, batches: Mapping[Place, MessageBatch]) -> None:
        topics: dict[str, list[bytes]] = {}
        for place, batch in batches.items():
            records = batch.get_data_buffer()
            parts = topics.setdefault(place.topic, [])
            parts += (_PARTITION.pack(place.partition, len(records)), records)
        body = [_BODY.pack(-1, acks, timeout_ms, len(topics))]
        for topic, parts in topics.items():
            name = topic.encode()
            body += (_INT16.pack(len(name)), name, _INT32.pack(len(parts) // 2), *parts)
        self._body = b"".join(body)
        self.correlation_id = 0

    def prepare(self, _versions: object) -> PackedRequest:
        """Return itself: the version is known."""
        return self

    def build_request_header(self, correlation_id: int, client_id: str) -> _Header:
        """Return the header."""
        return _Header(correlation_id, client_id)

    def encode(self) -> bytes:
        """Return the body."""
        return self._body

    def parse_response_header(self, answer: BytesIO) -> PackedRequest:
        """Read the header of the answer, which is `correlation_id`."""
        (self.correlation_id,) = _INT32.unpack(answer.read(4))
        return self


class _Header(NamedTuple):
    correlation_id: int
    client_id: str

    def encode(self) -> bytes:
        client = self.client_id.encode()
        return _HEADER.pack(PRODUCE, VERSION, self.correlation_id, len(client)) + client


class _Answered:
    """In place of the client, for aiokafka's handler of a request: the request has been sent and answered already."""

    def __init__(self, client: Any, answer: asyncio.Future[Any]) -> None:
        self.force_metadata_update = client.force_metadata_update
        self._maybe_wait_metadata = client._maybe_wait_metadata  # noqa: SLF001 - see above
        self._answer = answer

    async def send(self, _node: int, _request: object) -> Any:
        return self._answer.result()


class DirectSender(Sender):  # type: ignore[misc]
    """Takes the place of a producer's sender: `DirectSender(producer)` before the producer is started."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        replaced = producer._sender  # noqa: SLF001 - it has no public name
        super().__init__(
            replaced.client,
            acks=replaced._acks,  # noqa: SLF001
            txn_manager=replaced._txn_manager,  # noqa: SLF001
            message_accumulator=replaced._message_accumulator,  # noqa: SLF001
            retry_backoff_ms=int(replaced._retry_backoff * 1000),  # noqa: SLF001
            request_timeout_ms=replaced._request_timeout_ms,  # noqa: SLF001
        )
        producer._sender = self  # noqa: SLF001
        self._loop = asyncio.get_running_loop()
        self._asked: dict[int, tuple[float, Any, asyncio.Future[Any]]] = {}
        """By broker: when it was asked, over which connection, and its answer."""
        self._timer: asyncio.TimerHandle | None = None
        self._recovering: set[asyncio.Task[None]] = set()

    def send(self, place: Place, builder: BatchBuilder, settled: Settled, into: dict[int, dict[Place, Any]]) -> bool:
        """Take a batch that can be sent at once, into the requests by broker that `request` sends.

        Return whether it was taken; otherwise it must be sent with `producer.send_batch`. `settled` is called with the
        batch's future as soon as its outcome is known.
        """
        batches = self._message_accumulator
        broker = self.client.cluster.leader_for_partition(place)
        if (
            broker is None
            or broker < 0
            or broker in self._in_flight
            or place in self._muted_partitions
            or place in batches._batches  # noqa: SLF001
            or batches._closed  # noqa: SLF001
            or batches._exception is not None  # noqa: SLF001
            or self._sender_task is None
            or self._sender_task.done()
            or not self._txn_manager.has_pid()
        ):
            return False
        connection = self.client._conns.get((broker, ConnectionGroup.DEFAULT))  # noqa: SLF001
        if connection is None or not connection.connected():
            return False
        batch = _Batch(place, builder, batches._batch_ttl, settled)  # noqa: SLF001
        batches._batches[place].append(batch)  # noqa: SLF001
        batches._pop_batch(place)  # noqa: SLF001 - gives it its sequence number
        into.setdefault(broker, {})[place] = batch
        return True

    def request(self, broker: int, batches: dict[Place, Any]) -> None:
        """Send the batches that `send` has taken for this broker."""
        self._in_flight.add(broker)
        self._muted_partitions.update(batches)
        connection = self.client._conns[broker, ConnectionGroup.DEFAULT]  # noqa: SLF001
        try:
            answer = self._write(connection, batches)
        except Exception as exc:  # noqa: BLE001 - `_recover` decides what it means
            answer = self._loop.create_future()
            answer.set_exception(exc)
        self._asked[broker] = (self._loop.time(), connection, answer)
        if self._timer is None:
            self._timer = self._loop.call_later(self._patience, self._look)
        answer.add_done_callback(partial(self._answered, broker, batches))

    @property
    def _patience(self) -> float:
        return float(self._request_timeout_ms / 1000)

    def _write(self, connection: Any, batches: dict[Place, Any]) -> asyncio.Future[Any]:
        least, most = connection._versions.get(PRODUCE, (0, 0))  # noqa: SLF001
        if least <= VERSION <= most:
            request = PackedRequest(self._acks, self._request_timeout_ms, batches)
        else:
            request = SendProduceReqHandler(self, batches).create_request()
        # It returns a coroutine that waits for the answer with a timer, in place of which is ours.
        connection.send(request).close()
        answer: asyncio.Future[Any] = connection._requests[-1][2]  # noqa: SLF001
        return answer

    def _look(self) -> None:
        """Give up what has not been answered in time, as aiokafka does: the connection is closed and renewed."""
        self._timer = None
        now, patience = self._loop.time(), self._patience
        for asked, connection, answer in list(self._asked.values()):
            if now - asked >= patience and not answer.done():
                answer.set_exception(RequestTimedOutError())
                connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
        waiting = [asked for asked, _, answer in self._asked.values() if not answer.done()]
        if waiting:
            self._timer = self._loop.call_later(min(waiting) + patience - now, self._look)

    def _answered(self, broker: int, batches: dict[Place, Any], answer: asyncio.Future[Any]) -> None:
        del self._asked[broker]
        if self._sender_task.done():
            return  # the producer has been given up, and its batches with it
        offsets = None if answer.cancelled() or answer.exception() is not None else _offsets(answer.result(), batches)
        if offsets is None:
            task = self._loop.create_task(self._recover(broker, batches, answer))
            self._recovering.add(task)
            task.add_done_callback(self._recovering.discard)
            return
        self._free(broker, batches)
        for batch, (offset, timestamp, first) in offsets:
            batch.done(offset, timestamp, first)

    def _free(self, broker: int, batches: dict[Place, Any]) -> None:
        """Let the next request go to the broker and its partitions, and wake aiokafka's loop if there is one."""
        self._in_flight.discard(broker)
        self._muted_partitions.difference_update(batches)
        waiter = self._message_accumulator.waiter()
        if self._message_accumulator._batches and not waiter.done():  # noqa: SLF001
            waiter.set_result(None)

    async def _recover(self, broker: int, batches: dict[Place, Any], answer: asyncio.Future[Any]) -> None:
        """Let aiokafka handle an answer that is not a plain success, or that has not come."""
        handler = SendProduceReqHandler(self, batches)
        handler._client = _Answered(self.client, answer)  # noqa: SLF001
        try:
            await handler.do(broker)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the batches have no other outcome
            for batch in batches.values():
                batch.failure(exc)
        self._free(broker, batches)

    async def close(self) -> None:
        """End the sender, and what handles answers."""
        self.abandon()
        await super().close()

    def abandon(self) -> None:
        """Stop handling answers, because the batches are given up."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in self._recovering:
            task.cancel()


def _offsets(answer: Any, batches: dict[Place, Any]) -> list[tuple[Any, tuple[int, int, int]]] | None:
    """Return each batch with its offset, time and the partition's first offset; None if not all have succeeded."""
    if not isinstance(answer, ProduceAnswer):
        return None
    found = []
    for topic, partitions in answer.topics:
        for partition, error, offset, timestamp, first in partitions:
            batch = batches.get(Place(topic, partition))
            if error or batch is None:
                return None
            found.append((batch, (offset, timestamp, first)))
    return found if len(found) == len(batches) else None
