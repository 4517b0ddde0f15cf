"""The topic settings that exact counting relies on: required values, and the command that corrects a wrong one.

Pure functions of Kafka's answer to DescribeConfigs. Gateways and workers check the settings when they start, and
`tallystream doctor` on demand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MIN_MESSAGE_BYTES = 1_000_000
"""Minimum size of a record batch that a topic must accept. Kafka's own default is 1,048,588 (`message.max.bytes`)."""
REPLICAS = 3
IN_SYNC = 2
AT_LEAST = frozenset({"retention.ms", "min.compaction.lag.ms", "max.message.bytes", "min.insync.replicas"})
"""Settings that may be higher than required; a retention of -1 is unlimited."""
LISTS = frozenset({"cleanup.policy"})
FUTURE = "message.timestamp.after.max.ms"
"""How far a producer's time may be ahead of the broker's clock. Brokers since 3.6 have it; since 4.0 the default is one
hour, so that a broker whose clock is behind by more would refuse every row."""
ANY_FUTURE = str((1 << 63) - 1)
SELF_MENDED = frozenset({"flush.messages", FUTURE})
"""Settings that a start corrects by itself, because that can only make data safer."""


@dataclass(frozen=True)
class TopicSpec:
    """A topic as we create it. An existing topic must have the same `config`.

    `promised`: others rely on what was acknowledged, so with a single replica it is flushed at once. Clients rely on
    their 200, the changelog's position on the public rows, and the poller's cursor on the records before it.
    """

    name: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)
    promised: bool = False
    at_creation: dict[str, str] = field(default_factory=dict)
    """Settings that an existing topic need not have."""
    spread: bool = False
    """One of the topics with TALLYSTREAM_PARTITIONS partitions: every writer names the partition of each record."""
    replication: int | None = None
    """Replicas to create it with; None: as many as the cluster is configured for, at most three."""

    def wanted(self, replicas: int) -> dict[str, str]:
        """Return every required setting, for a topic with this many replicas.

        With three replicas, two must be in sync, and unclean leader election is disabled. With fewer, durability
        depends on the broker's disk, so a promised message is flushed before it is acknowledged.
        """
        wanted = {"max.message.bytes": str(MIN_MESSAGE_BYTES), **self.config}
        deletes = "delete" in self.config.get("cleanup.policy", "").split(",")
        if deletes and "retention.bytes" not in self.at_creation:
            wanted["retention.bytes"] = "-1"
        if "message.timestamp.type" not in self.config:
            wanted[FUTURE] = ANY_FUTURE
        if replicas >= REPLICAS:
            wanted |= {"min.insync.replicas": str(IN_SYNC), "unclean.leader.election.enable": "false"}
        elif self.promised:
            wanted["flush.messages"] = "1"
        return wanted

    def creation(self, replicas: int, *, future: bool = False) -> dict[str, str]:
        """Return the settings to create it with; the batch limit is left to the broker, whose default is higher.

        `future`: the brokers know the setting FUTURE; others refuse a topic with it.
        """
        left = {"max.message.bytes"} if future else {"max.message.bytes", FUTURE}
        return {name: value for name, value in self.wanted(replicas).items() if name not in left} | self.at_creation


@dataclass(frozen=True)
class Misfit:
    """A setting with a wrong value."""

    topic: str
    name: str
    have: str
    want: str

    @property
    def what(self) -> str:
        """Describe it for people."""
        least = "at least " if self.name in AT_LEAST else ""
        return f"{self.topic} has {self.name}={self.have or 'nothing'} instead of {least}{self.want}"

    def command(self, bootstrap: str) -> str:
        """Return the command that corrects it."""
        value = f"[{self.want}]" if "," in self.want else self.want
        return (
            f"kafka-configs.sh --bootstrap-server {bootstrap} --alter --entity-type topics --entity-name {self.topic}"
            f" --add-config {self.name}={value}"
        )


def misfits(spec: TopicSpec, replicas: int, have: Mapping[str, str]) -> list[Misfit]:
    """Compare a topic's effective settings with the required ones.

    Settings that the broker does not report are skipped, because some brokers do not have them all.
    """
    return [
        Misfit(spec.name, name, have[name], want)
        for name, want in spec.wanted(replicas).items()
        if name in have and not _fits(name, have[name], want)
    ]


def _fits(name: str, have: str, want: str) -> bool:
    if name in LISTS:
        return set(have.split(",")) == set(want.split(","))
    if name in AT_LEAST and _number(have) is not None:
        return (have == "-1" and name == "retention.ms") or int(have) >= int(want)
    return have == want


def _number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
