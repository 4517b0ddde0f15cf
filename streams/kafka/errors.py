"""What can go wrong with Kafka, in our own words."""

from __future__ import annotations

from tallystream.schemas.errors import RetryableError, UnreachableError
from tallystream.streams.kafka.settings import KafkaSettings

REACH_HINT = "is it running and reachable from here? `tallystream status` shows the embedded one"


class TopicRecreatedError(RetryableError):
    """A topic is not the one that was read so far: it was deleted and created again, or cut.

    What was read of it means nothing any more; it is to be read from its beginning.
    """

    code = "topic_recreated"


def unreachable(
    kafka: KafkaSettings, cause: object, did_not: str = "answer", hint: str = REACH_HINT
) -> UnreachableError:
    """Return the error for a cluster that did not do what it was asked for.

    Args:
        kafka: the cluster.
        cause: an exception, or what happened in words.
        did_not: completes "Kafka at HOST:PORT did not ...".
        hint: what to do about it.

    """
    return UnreachableError(f"Kafka at {kafka.bootstrap} did not {did_not}: {str(cause) or type(cause).__name__}", hint)
