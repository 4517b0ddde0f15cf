"""Requests and answers are the bytes that aiokafka's own classes make and read."""

from __future__ import annotations

import asyncio
from io import BytesIO

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder, MessageBatch
from aiokafka.protocol.produce import ProduceRequest_v7, ProduceResponse_v7

from tallystream.streams.gateway.delivery.direct_sender import VERSION, DirectSender, PackedRequest, ProduceAnswer
from tallystream.streams.gateway.message import Place


def batch_of(place: Place, *values: bytes) -> MessageBatch:
    builder = BatchBuilder(1 << 20, 0)
    for value in values:
        builder.append(timestamp=1, key=b"key", value=value, headers=[("schema", b"usage-batch/1")])
    return MessageBatch(place, builder, 1.0, 0)


async def test_request_equals_that_of_aiokafka() -> None:
    batches = {
        place: batch_of(place, *values)
        for place, values in (
            (Place("usage", 3), (b"one", b"two")),
            (Place("wítness", 0), (b"x" * 5000,)),
            (Place("usage", 11), (b"",)),
        )
    }
    packed = PackedRequest(-1, 15_000, batches)
    records = {place: batch.get_data_buffer() for place, batch in batches.items()}
    topics = [
        ("usage", [(3, records[Place("usage", 3)]), (11, records[Place("usage", 11)])]),
        ("wítness", [(0, records[Place("wítness", 0)])]),
    ]
    theirs = ProduceRequest_v7(None, -1, 15_000, topics)
    assert packed.encode() == theirs.encode()
    header = theirs.build_request_header(77, "aiokafka-producer-1")
    assert packed.build_request_header(77, "aiokafka-producer-1").encode() == header.encode()
    assert theirs.API_VERSION == ProduceAnswer.API_VERSION == VERSION


async def test_answer_is_read_as_aiokafka_reads_it() -> None:
    topics = [("usage", [(3, 0, 1 << 40, -1, 0), (11, 6, -1, -1, -1)]), ("wítness", [(0, 0, 7, 1_700_000_000_000, 5)])]
    raw = ProduceResponse_v7(topics, 20).encode()
    header = BytesIO((77).to_bytes(4, "big") + raw)
    assert PackedRequest(-1, 1, {}).parse_response_header(header).correlation_id == 77
    assert ProduceAnswer.decode(header).topics == ProduceResponse_v7.decode(raw).topics == topics


async def test_batch_is_not_taken_before_the_producer_is_started() -> None:
    producer = AIOKafkaProducer(bootstrap_servers="127.0.0.1:1", enable_idempotence=True)
    sender = DirectSender(producer)
    told: list[asyncio.Future[object]] = []
    assert not sender.send(Place("usage", 0), producer.create_batch(), told.append, {})
    await producer.stop()
    assert not told
