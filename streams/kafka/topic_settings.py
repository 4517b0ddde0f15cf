"""The settings of topics that the promise rests on: what each must be, and the command that mends one that is not.

Pure: what a topic has is Kafka's answer to DescribeConfigs. A gateway and a worker check this when they start, and
`tallystream doctor` whenever it is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MIN_MESSAGE_BYTES = 1_000_000
"""What a topic must take in one record batch. Kafka's own default is 1,048,588 (`message.max.bytes`)."""
REPLICAS = 3
IN_SYNC = 2
AT_LEAST = frozenset({"retention.ms", "min.compaction.lag.ms", "max.message.bytes", "min.insync.replicas"})
"""More than we ask for does no harm; a retention of -1 is for ever."""
LISTS = frozenset({"cleanup.policy"})
SELF_MENDED = frozenset({"flush.messages"})
"""What a start sets by itself: it can only make what is there safer."""


@dataclass(frozen=True)
class TopicSpec:
    """A topic as we create it. `config` is also what an existing topic must have.

    `promised`: somebody relies on what was acknowledged, so where one replica is all there is it is flushed at once: a
    client on its 200, the changelog on the public rows that its position says were published, the poller's cursor on
    the records before it, a person on the connection that was shown.
    """

    name: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)
    promised: bool = False
    at_creation: dict[str, str] = field(default_factory=dict)
    """Settings that an existing topic need not have."""
    replication: int | None = None
    """Replicas to create it with; None: what the cluster is made for, three at most."""

    def wanted(self, replicas: int) -> dict[str, str]:
        """Return every setting that matters, for a topic with so many replicas.

        With three, two in sync are required and no replica that lacks records may lead. With fewer an acknowledgement
        is worth what the broker's disk is worth, so a promised message is on it before it is acknowledged.
        """
        wanted = {"max.message.bytes": str(MIN_MESSAGE_BYTES), **self.config}
        deletes = "delete" in self.config.get("cleanup.policy", "").split(",")
        if deletes and "retention.bytes" not in self.at_creation:
            wanted["retention.bytes"] = "-1"
        if replicas >= REPLICAS:
            wanted |= {"min.insync.replicas": str(IN_SYNC), "unclean.leader.election.enable": "false"}
        elif self.promised:
            wanted["flush.messages"] = "1"
        return wanted

    def creation(self, replicas: int) -> dict[str, str]:
        """Return the settings to create it with; the limit of a batch is left to the broker, whose default is more."""
        wanted = {name: value for name, value in self.wanted(replicas).items() if name != "max.message.bytes"}
        return wanted | self.at_creation


@dataclass(frozen=True)
class Misfit:
    """A setting that is not what it must be."""

    topic: str
    name: str
    have: str
    want: str

    @property
    def what(self) -> str:
        """Say it in words."""
        least = "at least " if self.name in AT_LEAST else ""
        return f"{self.topic} has {self.name}={self.have or 'nothing'} instead of {least}{self.want}"

    def command(self, bootstrap: str) -> str:
        """Return the command that mends it."""
        value = f"[{self.want}]" if "," in self.want else self.want
        return (
            f"kafka-configs.sh --bootstrap-server {bootstrap} --alter --entity-type topics --entity-name {self.topic}"
            f" --add-config {self.name}={value}"
        )


def misfits(spec: TopicSpec, replicas: int, have: Mapping[str, str]) -> list[Misfit]:
    """Compare a topic's effective settings with what they must be.

    A setting that the broker does not tell is left out: some do not have them all.
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
