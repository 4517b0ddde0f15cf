"""Errors of the Kafka client kit."""

from __future__ import annotations

from tallystream.schemas.errors import RetryableError, UnreachableError
from tallystream.streams.kafka.settings import KafkaSettings

REACH_HINT = "check that it is running and reachable from here; `tallystream status` shows the embedded one"


class TopicRecreatedError(RetryableError):
    """A topic is no longer the one that was read: it was deleted and created again, or truncated.

    Everything read from it is invalid; it must be read again from its beginning.
    """

    code = "topic_recreated"


def unreachable(
    kafka: KafkaSettings, cause: object, did_not: str = "answer", hint: str = REACH_HINT
) -> UnreachableError:
    """Return the error for a cluster that did not complete a request.

    Args:
        kafka: the cluster.
        cause: an exception or a description.
        did_not: completes "Kafka at HOST:PORT did not ...".
        hint: what to do about it.

    """
    return UnreachableError(f"Kafka at {kafka.bootstrap} did not {did_not}: {str(cause) or type(cause).__name__}", hint)
