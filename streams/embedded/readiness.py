"""Readiness check: the broker is ready when a consumer group can join, which is later than when its port is open.

A broker that listens may still answer COORDINATOR_NOT_AVAILABLE: the offsets topic is created with the first group.
Describing a group that does not exist creates that topic, succeeds only when its one partition is loaded, and does not
leave a group behind.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tallystream.streams.kafka.admin import new_admin
from tallystream.streams.kafka.lifecycle import close, start
from tallystream.streams.kafka.settings import KafkaSettings

POLL_SECONDS = 0.05
GROUP = "tallystream-readiness"
GROUP_ID_NOT_FOUND = 69
"""Kafka's error code; older versions of the request answer 0 and call the group dead."""


def await_group(kafka: KafkaSettings, deadline: float, ended: Callable[[], bool]) -> bool:
    """Wait until a group could join the broker; False at `deadline` (monotonic s), or when `ended` returns true.

    Runs in a separate thread, so that it may be called while an event loop is running.
    """
    host, _, port = kafka.bootstrap.rpartition(":")
    while not _listens(host, int(port)):
        if ended() or time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(_poll(kafka, deadline, ended))).result()


async def can_join(admin: AIOKafkaAdminClient) -> bool:
    """Tell whether a group could join now."""
    try:
        responses = await admin.describe_consumer_groups([GROUP])
    except (KafkaError, OSError):
        return False
    codes = [group[0] for response in responses for group in response.groups]
    return bool(codes) and all(code in (0, GROUP_ID_NOT_FOUND) for code in codes)


async def _poll(kafka: KafkaSettings, deadline: float, ended: Callable[[], bool]) -> bool:
    while time.monotonic() < deadline and not ended():
        admin = new_admin(kafka, request_timeout=5.0)
        try:
            await start(admin)
            while time.monotonic() < deadline and not ended():
                if await can_join(admin):
                    return True
                await asyncio.sleep(POLL_SECONDS)
        except (KafkaError, OSError):
            await asyncio.sleep(POLL_SECONDS)
        finally:
            await close(admin)
    return False


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0
