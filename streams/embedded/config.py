"""The broker's configuration as pure data: a frozen value becomes the text of `server.properties`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

HOST = "127.0.0.1"
YEAR_MINUTES = 525_600
LOG_DIR = "log"
"""Relative to the working directory of the broker: Kafka would split an absolute path that contains a comma."""


@dataclass(frozen=True)
class Listener:
    """Where clients connect. `name` is unique; `protocol` is PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""

    port: int
    name: str = "PLAINTEXT"
    protocol: str = "PLAINTEXT"
    properties: Mapping[str, str] = field(default_factory=dict)
    """Properties under `listener.name.<name>.`: key stores, SASL mechanisms."""
    mechanism: str | None = None
    """SASL mechanism with which the broker itself connects to it."""


@dataclass(frozen=True)
class BrokerConfig:
    """One combined broker and controller. The first listener is the one the broker itself uses."""

    controller: Listener
    listeners: tuple[Listener, ...]
    overrides: Mapping[str, str] = field(default_factory=dict)

    def properties(self) -> dict[str, str]:
        """Return the properties of `server.properties`."""
        own, controller = self.listeners[0], self.controller
        everyone = (*self.listeners, controller)
        addresses = [f"{listener.name}://{HOST}:{listener.port}" for listener in everyone]
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{HOST}:{controller.port}",
            "controller.listener.names": controller.name,
            "listeners": ",".join(addresses),
            "advertised.listeners": ",".join(addresses[:-1]),
            "listener.security.protocol.map": ",".join(f"{one.name}:{one.protocol}" for one in everyone),
            "inter.broker.listener.name": own.name,
            "log.dirs": LOG_DIR,
        }
        if own.mechanism:
            properties["sasl.mechanism.inter.broker.protocol"] = own.mechanism
        if controller.mechanism:
            properties["sasl.mechanism.controller.protocol"] = controller.mechanism
        for listener in everyone:
            prefix = f"listener.name.{listener.name.lower()}."
            properties |= {prefix + name: value for name, value in listener.properties.items()}
        return {**properties, **ONE_NODE, **PROMPT, **SMALL, **KEPT, **self.overrides}


ONE_NODE = {
    # One node cannot hold three replicas. Without the setting for the share coordinator the broker would retry forever.
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
}
PROMPT = {
    # A single node that is killed and restarted is fenced until its old session ends: 9 s by default.
    "broker.session.timeout.ms": "1000",
    "broker.heartbeat.interval.ms": "200",
    # By default Kafka waits for more members before it rebalances; here the first one should start at once.
    "group.initial.rebalance.delay.ms": "0",
    # The worker's session timeout is 6 s; tests use less.
    "group.min.session.timeout.ms": "1000",
}
SMALL = {
    "num.partitions": "1",
    # With one partition for all groups, every group can join as soon as it is loaded.
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "num.network.threads": "2",
    "num.io.threads": "4",
    # 128 MiB by default, taken from the heap once, at the start; this is enough for 1.2 million keys a pass.
    "log.cleaner.dedupe.buffer.size": str(32 << 20),
}
KEPT = {
    # A laptop may be off for weeks: committed offsets must survive that.
    "offsets.retention.minutes": str(YEAR_MINUTES),
    # A topic that was created implicitly would have the wrong retention.
    "auto.create.topics.enable": "false",
    # Without a second replica a power failure could lose data, so at most one second of it stays unsynced.
    "log.flush.interval.ms": "1000",
    "log.flush.scheduler.interval.ms": "1000",
    # Deliberately left at Kafka's default limit of 1 MiB per batch, so that whatever works here works on other
    # clusters.
    "message.max.bytes": "1048588",
}


def render(properties: Mapping[str, str]) -> str:
    """Return the text of a Java properties file, escaped so that Java reads back the same values."""
    return "".join(f"{_escape(name)}={_escape(value)}\n" for name, value in sorted(properties.items()))


def _escape(text: str) -> str:
    special = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "=": "\\=", ":": "\\:", "#": "\\#", "!": "\\!"}
    escaped = []
    for index, character in enumerate(text):
        if character in special:
            escaped.append(special[character])
        elif character == " " and index == 0:
            escaped.append("\\ ")
        elif " " <= character <= "~":
            escaped.append(character)
        else:
            units = character.encode("utf-16-be")
            escaped += [f"\\u{units[i] << 8 | units[i + 1]:04x}" for i in range(0, len(units), 2)]
    return "".join(escaped)
