"""The identity of a local state: the deployment that it belongs to, by cluster, prefix and source topics.

A store, a spool, a snapshot or a copy is valid only together with the topics it was built from. But old volumes are
reattached, backups are restored, and a prefix or `--kafka` changes while the directory stays. So every local state
carries an `Identity`, and another deployment's state is set aside (`set_aside.py`) and rebuilt.

Topic ids are Kafka's (KIP-516): a topic that was deleted and created again has a new id.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, for_code

from tallystream.schemas.errors import UnreachableError
from tallystream.streams.kafka.admin import administering, persistently
from tallystream.streams.kafka.metadata import TopicIdsRequest
from tallystream.streams.kafka.settings import KafkaSettings

UNKNOWN_TOPIC = 3
"""Kafka's error code of a topic that does not exist (UNKNOWN_TOPIC_OR_PARTITION)."""
_FORMAT = 1


@dataclass(frozen=True)
class Identity:
    """A deployment as recorded in a local state.

    `topic_ids` maps a topic's full name to its id (22 characters, as Kafka's own tools print it); it has the existing
    topics that the state was built from. "" stands for an id that the broker does not report.
    """

    cluster_id: str
    prefix: str
    topic_ids: Mapping[str, str] = field(default_factory=dict)

    def difference(self, found: Identity) -> str:
        """Return why a state with the identity `found` does not belong to this deployment, or "" when it does.

        Topics missing in `found` are ignored, because a state that was built without them does not depend on them.
        """
        if found.cluster_id != self.cluster_id:
            return f"it belongs to the Kafka cluster {found.cluster_id}, this is {self.cluster_id}"
        if found.prefix != self.prefix:
            return f"it belongs to the prefix {found.prefix!r}, this is {self.prefix!r}"
        for topic, there in found.topic_ids.items():
            here = self.topic_ids.get(topic)
            if here is None:
                return f"the topic {topic} it was built from no longer exists"
            if here and there and here != there:
                return f"the topic {topic} has been deleted and created again since"
        return ""

    def matches(self, found: Identity | None) -> bool:
        """Tell whether a state with the identity `found` belongs to this deployment; a state without one does not."""
        return found is not None and not self.difference(found)

    def save(self, path: Path) -> None:
        """Replace the file atomically and fsync it, so that readers never see a partial file.

        Raises:
            OSError: the file cannot be written.

        """
        document = {
            "format": _FORMAT,
            "cluster_id": self.cluster_id,
            "prefix": self.prefix,
            "topic_ids": dict(self.topic_ids),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(fd, "w") as file:
                json.dump(document, file)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: Path) -> Identity | None:
        """Read the file; None when it does not exist or is not valid (another version's, or a partial one).

        Raises:
            OSError: the file exists but cannot be read.

        """
        try:
            found = json.loads(path.read_bytes())
            if found["format"] != _FORMAT:
                return None
            topic_ids = {str(topic): str(one) for topic, one in found["topic_ids"].items()}
            return cls(str(found["cluster_id"]), str(found["prefix"]), topic_ids)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


async def read_identity(kafka: KafkaSettings, prefix: str, topics: Iterable[str], *, seconds: float = 15.0) -> Identity:
    """Ask the cluster for its id and the ids of `topics`; those that do not exist are left out.

    Raises:
        UnreachableError: Kafka did not answer within `seconds`.

    """
    wanted = tuple(topics)
    try:
        async with asyncio.timeout(seconds), administering(kafka) as admin:
            return await persistently(lambda: identity_from(admin, prefix, wanted), seconds)
    except (KafkaError, OSError, TimeoutError) as exc:
        raise UnreachableError(
            f"Kafka at {kafka.bootstrap} did not report its cluster id: {str(exc) or type(exc).__name__}",
            "check that it is running and reachable from here; `tallystream status` shows the embedded one",
        ) from exc


async def identity_from(admin: AIOKafkaAdminClient, prefix: str, topics: Iterable[str]) -> Identity:
    """Ask for the same over an admin client that is open.

    Raises:
        KafkaError: Kafka did not answer, or does not let us see a topic.

    """
    return identity_in(await metadata(admin, topics), prefix)


async def metadata(admin: AIOKafkaAdminClient, topics: Iterable[str]) -> dict[str, Any]:
    """Return what Kafka's Metadata response says of topics, with their ids.

    Raises:
        KafkaError: Kafka did not answer.

    """
    response = await admin._send_request(TopicIdsRequest(sorted(set(topics))))  # noqa: SLF001 - it has no public way
    found: dict[str, Any] = response.to_object()
    return found


def identity_in(found: Mapping[str, Any], prefix: str) -> Identity:
    """Return the identity in such a response.

    Raises:
        KafkaError: Kafka does not let us see a topic.

    """
    topic_ids = {}
    for topic in found["topics"]:
        if topic["error_code"] == UNKNOWN_TOPIC:
            continue
        if topic["error_code"] and not topic["partitions"]:
            raise for_code(topic["error_code"])(topic["topic"])
        raw = topic.get("topic_id", b"")
        topic_ids[topic["topic"]] = base64.urlsafe_b64encode(raw).rstrip(b"=").decode() if any(raw) else ""
    return Identity(str(found["cluster_id"]), prefix, topic_ids)
