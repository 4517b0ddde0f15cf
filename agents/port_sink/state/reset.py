"""Resets the record of sent entities, so that the sink sends them again."""

from __future__ import annotations

from aiokafka.errors import KafkaError

from tallystream.agents.port_sink.state.sent import HEADERS, SWEEP
from tallystream.schemas import keys
from tallystream.schemas.port import SweepRequest
from tallystream.streams.kafka.errors import unreachable
from tallystream.streams.kafka.producer import MANY, producing
from tallystream.streams.kafka.reader import latest
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics


async def forget(kafka: KafkaSettings, topics: Topics, blueprint: str | None) -> int:
    """Forget the entities of a blueprint, or all, and ask the active sink for a sweep; return their number.

    Raises:
        UnreachableError: Kafka does not answer.

    """
    await ensure(kafka, (topics.port_sent,))
    sent = [key for key in await latest(kafka, topics.port_sent.name) if _is(key, blueprint)]
    try:
        async with producing(kafka, MANY) as producer:
            for key in sent:
                await producer.send(topics.port_sent.name, None, key=key, headers=HEADERS["entity"])
            await producer.flush()
            value = SweepRequest(blueprint=blueprint).model_dump_json().encode()
            await producer.send_and_wait(topics.port_sent.name, value, key=SWEEP, headers=HEADERS["sweep"])
    except (KafkaError, OSError) as exc:
        raise unreachable(kafka, exc, "take the reset") from exc
    return len(sent)


def _is(key: bytes, blueprint: str | None) -> bool:
    try:
        context = keys.split(key)
    except ValueError:  # not a key of ours
        return False
    return context[0] == "entity" and len(context) == 3 and blueprint in (None, context[1])
