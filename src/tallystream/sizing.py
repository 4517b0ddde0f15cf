"""What a number of agents needs: cores, partitions, disk, calls to Port, dollars. Pure.

The costs of one request, event and row were measured (docs/operations/sizing.md says how and on what); everything else
follows from them and from what the caller assumes about the agents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

REQUEST_CPU_SECONDS: Final = 540e-6
"""CPU of the gateway for an export request of 24 records of which 2 are usage, at a moderate rate."""
EVENT_CPU_SECONDS: Final = 18e-6
"""CPU of a worker for an event, at one or two events a message: the inverse of 55,000 events per CPU-second."""
USAGE_BYTES: Final = 654
"""A message of usage with two events and its attribution, key included."""
CHANGELOG_BYTES: Final = 300
"""Changelog per event at most, at one event a message."""
ROW_BYTES: Final = 1_060
"""Public rows per event at most: a session-hour and its share of the hour."""
KEPT_ROW_BYTES: Final = 800
"""A row of a session-hour after compaction, and the rows of its hour, shared."""
USAGE_DAYS: Final = 14
ROW_DAYS: Final = 400
PORT_ENTITIES_A_CALL: Final = 20
HEADROOM: Final = 0.6
"""Share of a core that is planned for, because load is never even."""
WORKER_MEMORY: Final = 350 << 20
GATEWAY_MEMORY: Final = 120 << 20


@dataclass(frozen=True)
class AgentLoad:
    """What is assumed of the agents."""

    agents: int
    """Agents that work at one time."""
    responses_per_minute: float = 6.0
    """Billed model responses of a working agent."""
    sessions_per_day: float = 8.0
    """Sessions of an agent a day."""
    hours_per_day: float = 8.0
    """Hours a day in which they work."""
    replication: int = 3
    """Replicas of each Kafka topic."""


@dataclass(frozen=True)
class MachinePrices:
    """What a machine costs, in dollars."""

    core_hour: Decimal = Decimal("0.04")
    gigabyte_month: Decimal = Decimal("0.10")


@dataclass(frozen=True)
class Sizing:
    """What a fleet needs."""

    events_per_second: float
    requests_per_second: float
    gateway_cores: float
    gateways: int
    """Processes, each of which uses one core at most."""
    worker_cores: float
    workers: int
    partitions: int
    brokers: int
    kafka_write_bytes_per_second: float
    """All replicas together."""
    kafka_disk_bytes: int
    """All replicas together, at the end of every retention."""
    session_hours_per_day: int
    memory_bytes: int
    """Of gateways and workers."""
    port_calls_per_minute: float
    """If every session is written once a minute while it is active."""
    usd_per_million_responses: Decimal


def size(fleet: AgentLoad, prices: MachinePrices | None = None) -> Sizing:
    """Return what a fleet needs.

    Raises:
        ValueError: a number is not positive.

    """
    if (
        min(fleet.agents, fleet.responses_per_minute, fleet.sessions_per_day, fleet.hours_per_day, fleet.replication)
        <= 0
    ):
        raise ValueError("all numbers of a fleet are above 0")
    prices = prices or MachinePrices()
    events = fleet.agents * fleet.responses_per_minute / 60
    # Exporters send about once a second while there is anything to send, so nearly every response has a request.
    requests = events
    gateway_cores, worker_cores = requests * REQUEST_CPU_SECONDS, events * EVENT_CPU_SECONDS
    gateways, workers = (max(1, math.ceil(cores / HEADROOM)) for cores in (gateway_cores, worker_cores))
    daily_events = events * 3600 * fleet.hours_per_day
    session_hours = math.ceil(
        fleet.agents * fleet.sessions_per_day * max(1.0, fleet.hours_per_day / fleet.sessions_per_day)
    )
    usage = daily_events * (USAGE_BYTES / 2) * USAGE_DAYS
    rows = session_hours * KEPT_ROW_BYTES * ROW_DAYS
    disk = math.ceil((usage + 2 * rows) * fleet.replication)
    written = events * (USAGE_BYTES / 2 + CHANGELOG_BYTES + ROW_BYTES) * fleet.replication
    month = Decimal(30)
    dollars = (
        prices.core_hour * 24 * month * (gateways + workers + fleet.replication)
        + prices.gigabyte_month * Decimal(disk) / 10**9
    )
    responses = Decimal(daily_events) * month / 10**6
    return Sizing(
        events_per_second=events,
        requests_per_second=requests,
        gateway_cores=gateway_cores,
        gateways=gateways,
        worker_cores=worker_cores,
        workers=workers,
        partitions=max(12, 4 * workers),
        brokers=fleet.replication,
        kafka_write_bytes_per_second=written,
        kafka_disk_bytes=disk,
        session_hours_per_day=session_hours,
        memory_bytes=gateways * GATEWAY_MEMORY + workers * WORKER_MEMORY,
        port_calls_per_minute=fleet.agents / PORT_ENTITIES_A_CALL,
        usd_per_million_responses=(dollars / responses).quantize(Decimal("0.01")),
    )
