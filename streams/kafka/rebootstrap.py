"""Asks the configured brokers when none of the known ones answers, as Kafka's own clients do since KIP-899.

aiokafka 0.14 asks only the brokers of the last metadata (`AIOKafkaClient._metadata_update`). A client that last asked
while a single broker was up knows only that one. When it goes down, the client waits for it for ever, although the
others are back: two outages within five minutes are enough.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka.client import ConnectionGroup
from aiokafka.structs import BrokerMetadata


def rebootstrap(client: Any) -> None:
    """Let a consumer, producer or admin client, not started yet, find its cluster again by its bootstrap servers.

    Relies on the client inside being called `client` (producer) or `_client`, on its `hosts`, and on `_metadata_update`
    asking the brokers in `cluster._brokers` through `_get_conn`.
    """
    inner = client.client if hasattr(client, "client") else client._client  # noqa: SLF001 - it has no public name
    update: Callable[[Any, Any], Awaitable[bool]] = inner._metadata_update  # noqa: SLF001 - named above

    async def updated(metadata: Any, topics: Any) -> bool:
        if await update(metadata, topics):
            return True
        cluster = inner.cluster
        names = {f"bootstrap-{number}": place for number, place in enumerate(inner.hosts)}
        asked = {name: BrokerMetadata(name, host, port, None) for name, (host, port, _) in names.items()}
        known, cluster._brokers = cluster._brokers, asked  # noqa: SLF001 - named above
        try:
            return await update(metadata, topics)
        finally:
            if cluster._brokers is asked:  # noqa: SLF001 - named above
                # of no use now, but they may answer again before the configured ones do
                cluster._brokers = known  # noqa: SLF001 - named above
            for name in asked:
                if (connection := inner._conns.pop((name, ConnectionGroup.DEFAULT), None)) is not None:  # noqa: SLF001
                    connection.close()

    inner._metadata_update = updated  # noqa: SLF001 - named above
