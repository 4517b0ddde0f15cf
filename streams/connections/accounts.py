"""Reads and writes the operator's map of connections to provider accounts: the compacted topic `accounts`."""

from __future__ import annotations

from aiokafka.errors import KafkaError
from pydantic import ValidationError

from tallystream.schemas.billing.accounts import AccountLink
from tallystream.schemas.catalogue import schema_of
from tallystream.schemas.errors import UsageError
from tallystream.streams.kafka.errors import unreachable
from tallystream.streams.kafka.producer import SINGLE, producing
from tallystream.streams.kafka.reader import latest
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics

HEADERS = schema_of(AccountLink).headers


class Accounts:
    """The map. Every method raises UnreachableError when Kafka does not answer."""

    def __init__(self, kafka: KafkaSettings, topics: Topics) -> None:
        self._kafka = kafka
        self._topic = topics.accounts

    async def all(self) -> list[AccountLink]:
        """Return all links, by connection."""
        links = []
        for value in (await latest(self._kafka, self._topic.name)).values():
            try:
                links.append(AccountLink.model_validate_json(value))
            except ValidationError:
                continue  # written by a newer version, so this one ignores it
        return sorted(links, key=lambda link: link.key)

    async def add(self, link: AccountLink) -> None:
        """Add a link; the same one again only renews its time."""
        await ensure(self._kafka, (self._topic,))
        await self._send(link.key, link.model_dump_json().encode())

    async def remove(self, connection_id: str) -> list[AccountLink]:
        """Remove all links of a connection and return them.

        Raises:
            UsageError: it has no links.

        """
        links = [link for link in await self.all() if link.connection_id == connection_id]
        if not links:
            raise UsageError(f"{connection_id} is not mapped", "`tallystream accounts list` shows those that are")
        for link in links:
            await self._send(link.key, None)
        return links

    async def _send(self, key: bytes, value: bytes | None) -> None:
        try:
            async with producing(self._kafka, SINGLE) as producer:
                await producer.send_and_wait(self._topic.name, value, key=key, headers=HEADERS)
        except (KafkaError, OSError) as exc:
            raise unreachable(self._kafka, exc) from exc
