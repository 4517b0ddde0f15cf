"""Checks that the clocks of gateways, brokers and this machine agree.

Lateness is judged by the broker's append times, so a broker whose clock jumps makes hours close too early or late.
"""

from __future__ import annotations

import asyncio
from email.utils import parsedate_to_datetime

import aiohttp
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from tallystream.doctor.model import Check, DoctorContext, Finding
from tallystream.streams.kafka.consumer import new_consumer
from tallystream.streams.kafka.lifecycle import close, start
from tallystream.streams.kafka.reader import partitions_of

TOLERATED = 5.0
STEP = "synchronize the clocks (NTP), the broker's first: its append times decide which hours are still open"


async def look(context: DoctorContext) -> list[Finding]:
    """Compare this machine's clock with the gateways' clocks and the broker's append times."""
    return [*await _gateways(context), *await _broker(context)]


async def _gateways(context: DoctorContext) -> list[Finding]:
    found = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http:
        for name, url in context.gateway_urls.items():
            try:
                async with http.get(f"{url}/healthz") as response:
                    said = parsedate_to_datetime(response.headers["Date"]).timestamp()
            except (aiohttp.ClientError, TimeoutError, OSError, KeyError, ValueError):
                continue  # the spool's check reports this
            found += judge(f"{name}'s clock", said, context.clock.now_ns() / 1e9)
    return found


async def _broker(context: DoctorContext) -> list[Finding]:
    """Return the problems shown by the newest append time, and by messages that arrive meanwhile."""
    topic = context.topics.usage.name
    consumer = new_consumer(context.kafka, beyond="latest")
    try:
        partitions = [TopicPartition(topic, p) for p in await partitions_of(context.kafka, topic)]
        if not partitions:
            return []
        await start(consumer)
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        begins = await consumer.beginning_offsets(partitions)
        for at in partitions:
            consumer.seek(at, max(begins[at], ends[at] - 1))
        newest, live = 0.0, None
        deadline = asyncio.get_running_loop().time() + context.watch
        while (left := deadline - asyncio.get_running_loop().time()) > 0 and live is None:
            for at, records in (await consumer.getmany(timeout_ms=int(min(left, 0.5) * 1000))).items():
                newest = max(newest, records[-1].timestamp / 1000)
                if records[-1].offset >= ends[at]:
                    live = records[-1].timestamp / 1000
    except (KafkaError, OSError) as exc:
        return [Finding("clock", f"Kafka does not return append times: {exc!r}", "try again")]
    finally:
        await close(consumer)
    now = context.clock.now_ns() / 1e9
    if live is not None:
        return judge("the broker's clock", live, now)
    # No message arrived meanwhile. An old append time is normal then, but one in the future is not.
    return judge("the broker's clock", newest, now) if newest > now else []


def judge(whose: str, said: float, now: float) -> list[Finding]:
    """Return a finding if a clock is off. Both times are in seconds since the epoch. Pure."""
    off = said - now
    if abs(off) <= TOLERATED:
        return []
    return [
        Finding("clock", f"{whose} is {abs(off):,.0f} s {'ahead of' if off > 0 else 'behind'} this machine's", STEP)
    ]


CHECK = Check("clock", look, needs_kafka=True)
