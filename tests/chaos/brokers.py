"""One embedded broker, or a cluster of combined KRaft nodes with replication 3 and min.insync.replicas 2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.open_kafka import OpenKafka

from tallystream.streams.embedded.broker import EmbeddedKafka
from tallystream.streams.process import tcp_ports

HOST = "127.0.0.1"
CLUSTER_ID = "cTallystreamChaosXXXXX"
REPLICATED = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
    # Three JVMs on a small machine may be slow, and a slow broker must not be taken for a dead one.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
}


def brokers(folder: Path, count: int, overrides: dict[str, str], port: int = 0) -> list[EmbeddedKafka]:
    """Return brokers that have not been started; node ids count from 1. `port` is for a single one."""
    if count == 1:
        return [OpenKafka(folder, port=port, overrides=overrides)]
    taken: list[int] = []
    for _ in range(2 * count):
        taken.append(tcp_ports.pick(*taken))
    clients, controllers = taken[:count], taken[count:]
    voters = ",".join(f"{n}@{HOST}:{controller}" for n, controller in enumerate(controllers, 1))
    return [
        OpenKafka(
            folder / f"{n}",
            port=client,
            cluster_id=CLUSTER_ID,
            overrides={
                **REPLICATED,
                "node.id": f"{n}",
                "controller.quorum.voters": voters,
                "listeners": f"PLAINTEXT://{HOST}:{client},CONTROLLER://{HOST}:{controller}",
                "advertised.listeners": f"PLAINTEXT://{HOST}:{client}",
                **overrides,
            },
        )
        for n, (client, controller) in enumerate(zip(clients, controllers, strict=True), 1)
    ]


def beside_each_other(actions: Sequence[Callable[[], object]]) -> None:
    """Run all of them in parallel, because a node of a cluster is ready only when others are."""
    with ThreadPoolExecutor(max(1, len(actions))) as pool:
        for one in [pool.submit(action) for action in actions]:
            one.result()
