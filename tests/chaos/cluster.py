"""A deployment to inject faults into: embedded Kafka, one gateway and some workers. Each process is restarted when it
ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any, Self

from tests.chaos.broker_clock import BrokerClock
from tests.chaos.brokers import beside_each_other
from tests.chaos.brokers import brokers as build
from tests.chaos.disks import SmallDisks
from tests.chaos.parts import ROOT, Part
from tests.chaos.toxiproxy import Toxiproxy
from tests.chaos.witness import Witness
from tests.support.stand_ins import urls_of
from tests.support.waiting import eventually

from tallystream.streams.embedded.broker import EmbeddedKafka
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.process import tcp_ports
from tallystream.streams.process.children import bound_argv

PREFIX = "chaos"


class Cluster:
    """Everything of one run, in `folder`. `environment` adds settings; `disk_mb` puts spool and stores on small disks.

    With `proxied`, toxiproxy stands in front of Kafka and of the gateway; with `clocked`, `clock` sets the brokers'
    time. `brokers` is 1, or 3 with replication. `companions` are exporter, poller and sink, the last two with stand-ins
    for OpenAI and Port.
    """

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 2,
        partitions: int = 6,
        seed: int = 1,
        disk_mb: int = 0,
        environment: dict[str, str] | None = None,
        kafka_overrides: dict[str, str] | None = None,
        proxied: bool = False,
        brokers: int = 1,
        companions: bool = False,
        clocked: bool = False,
    ) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.topics = Topics(PREFIX, partitions)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("TALLYSTREAM_")}
        self.environment = kept | {
            "PYTHONPATH": str(ROOT / "src"),
            "TALLYSTREAM_PREFIX": PREFIX,
            "TALLYSTREAM_USER_KEY": "the key of the chaos tests",
            "TALLYSTREAM_PARTITIONS": str(partitions),
            **(environment or {}),
        }
        overrides = dict(kafka_overrides or {})
        self.front = tcp_ports.pick() if proxied else 0
        """The port of the proxy in front of Kafka, 0 without one."""
        if proxied:
            overrides["advertised.listeners"] = f"PLAINTEXT://127.0.0.1:{self.front}"
        self.brokers = build(folder / "kafka", brokers, overrides, tcp_ports.pick() if proxied else 0)
        self.toxiproxy = Toxiproxy(folder / "toxiproxy.log") if proxied else None
        self.clock = BrokerClock(folder / "clock") if clocked else None
        self.gateway: Part
        self.workers: list[Part] = []
        self.companions: list[Part] = []
        self.parts: list[Part] = []
        self.witness: Witness
        self._workers = workers
        self._companions = companions
        self._stand_ins: subprocess.Popen[str] | None = None
        self._disks = SmallDisks(disk_mb)
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self.port = 0
        """The gateway's port for the load."""
        self._started: set[EmbeddedKafka] = set()

    @property
    def addresses(self) -> str:
        """The addresses of the brokers themselves, without the proxy."""
        return ",".join(broker.bootstrap for broker in self.brokers)

    @property
    def kafka(self) -> KafkaSettings:
        return KafkaSettings(self.addresses)

    @property
    def bootstrap(self) -> str:
        """The Kafka settings of gateway and workers."""
        return f"127.0.0.1:{self.front}" if self.front else self.addresses

    def data(self, name: str) -> Path:
        """Return the data dir of a component."""
        return self.folder / name

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            if self.toxiproxy is not None:
                self.toxiproxy.__enter__()
                self.toxiproxy.proxy("kafka", self.front, self.brokers[0].port)
            self.start_broker()
            if self._companions:
                self._start_stand_ins()
            self.gateway = self._gateway()
            for n in range(self._workers):
                self.workers.append(self.worker(f"worker-{n + 1}"))
            if self._companions:
                self.companions = [self.part(name, name) for name in ("exporter", "poller", "sink")]
            self._keeper.start()
            self.witness = Witness(self.kafka, self.topics)
            eventually(lambda: self.gateway.ready, "the gateway is ready", 180)
            self.settled()
            self.all_ready()
            self.witness.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "witness"):
            self.witness.stop()
        for ours in (True, False):
            beside_each_other([part.stop for part in self.parts if (part.name == "gateway") is ours])
        self._stopping.set()
        if self._keeper.is_alive():
            self._keeper.join()
        beside_each_other([broker.stop for broker in self.brokers])
        if self._stand_ins is not None:
            self._stand_ins.kill()
            self._stand_ins.communicate()
        if self.toxiproxy is not None:
            self.toxiproxy.__exit__(None, None, None)
        self._disks.unmount()

    def _keep(self) -> None:
        while not self._stopping.wait(0.03):
            for part in list(self.parts):
                part.keep()

    def part(
        self,
        name: str,
        *arguments: str,
        environment: dict[str, str] | None = None,
        data: Path | None = None,
        kafka: str = "",
    ) -> Part:
        """Start a component, which is kept running; `kafka` is another cluster than this one."""
        if data is None:
            data = self.data(name)
            self._disks.mount(data)
            data.mkdir(parents=True, exist_ok=True)
        ops = tcp_ports.pick()
        argv = [sys.executable, "-m", "tallystream", *arguments, "--ops-port", str(ops), "--data-dir", str(data)]
        argv += ["--kafka", kafka or self.bootstrap]
        part = Part(name, argv, self.folder / f"{name}.log", ops, self.environment | (environment or {}))
        self.parts.append(part)
        return part

    def _start_stand_ins(self) -> None:
        argv = [sys.executable, "-m", "tallystream", "sandbox", "--port", str(tcp_ports.pick()), "--json"]
        process = self._stand_ins = subprocess.Popen(
            bound_argv(argv), cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, text=True
        )
        urls = urls_of(process)
        self.environment |= {
            "TALLYSTREAM_OPENAI_BASE_URL": urls["openai"],
            "TALLYSTREAM_OPENAI_API_TOKEN": "sk-sandbox",
            "TALLYSTREAM_PORT_BASE_URL": urls["port"],
            "TALLYSTREAM_PORT_CLIENT_ID": "sandbox",
            "TALLYSTREAM_PORT_CLIENT_SECRET": "sandbox",
        }

    def _gateway(self) -> Part:
        port = self.port = tcp_ports.pick()
        if self.toxiproxy is not None:
            self.port = tcp_ports.pick(port)
            self.toxiproxy.proxy("gateway", self.port, port)
        return self.part("gateway", "gateway", "--port", str(port))

    def worker(self, name: str, *, static: bool = True) -> Part:
        """Start another worker, which is kept running. Every other one keeps copies of the others' partitions."""
        settings = {
            "TALLYSTREAM_WORKER_MEMBERSHIP": "static" if static else "dynamic",
            "TALLYSTREAM_WORKER_STANDBY": str(len(self.parts) % 2 == 0).lower(),
        }
        return self.part(name, "worker", "--instance", name, environment=settings)

    def second_gateway(self) -> Part:
        """Start a gateway on the volume of the first one, which is kept running; no load is sent to it."""
        argv = ["gateway", "--port", str(tcp_ports.pick())]
        return self.part("gateway-2", *argv, data=self.data("gateway"))

    def dismiss(self, part: Part) -> None:
        """Remove a part that has ended."""
        self.parts.remove(part)

    # -- the brokers; all of them if none is named

    def start_broker(self, *some: EmbeddedKafka) -> None:
        """Start the brokers, after a kill on the same ports."""

        def start(broker: EmbeddedKafka) -> None:
            if broker in self._started:
                broker.stop()
                broker._wanted_port = broker.port
            self._started.add(broker)
            broker.start()

        with self.clock.shifting() if self.clock is not None else contextlib.nullcontext():
            beside_each_other([partial(start, broker) for broker in some or self.brokers])

    def signal_broker(self, number: int, *some: EmbeddedKafka) -> None:
        for broker in some or self.brokers:
            os.kill(broker.pid, number)

    def kill_broker(self, *some: EmbeddedKafka) -> None:
        self.signal_broker(signal.SIGKILL, *some)
        for broker in some or self.brokers:
            eventually(lambda broker=broker: broker.poll() is not None, "the broker has ended")  # type: ignore[misc]

    # -- state

    def settled(self, seconds: float = 240.0) -> None:
        """Wait until the workers fold all partitions."""

        def all_owned() -> bool:
            owned = [p for worker in self.workers if worker.wanted for p in worker.partitions]
            return sorted(owned) == list(range(self.topics.partitions))

        eventually(all_owned, f"all partitions are folded; see {self.folder}", seconds)

    def all_ready(self, seconds: float = 240.0) -> None:
        """Wait until every component is ready."""
        for part in self.parts:
            eventually(lambda part=part: part.ready, part.why_not_ready, seconds)  # type: ignore[misc]

    def cli(
        self,
        *arguments: str,
        codes: tuple[int, ...] = (0,),
        seconds: float = 180.0,
        environment: dict[str, str] | None = None,
        kafka: str = "",
    ) -> str:
        """Run a command on this cluster, or on another one, and return its stdout."""
        argv = [sys.executable, "-m", "tallystream", *arguments, "--kafka", kafka or self.addresses]
        done = subprocess.run(
            argv, cwd=ROOT, env=self.environment | (environment or {}), capture_output=True, text=True,
            timeout=seconds, check=False,
        )  # fmt: skip
        assert done.returncode in codes, f"{arguments}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    def connect(self) -> str:
        """Create a connection and return its ingest id."""
        return str(json.loads(self.cli("connections", "create", "codex", "--json"))["ingest_id"])

    def caught_up(self, seconds: int = 120) -> None:
        """Wait until everything acknowledged is counted and can be read."""
        gateway = f"http://127.0.0.1:{self.gateway.ops_port}"
        self.cli("wait", "--caught-up", "--timeout", str(seconds), "--gateway-ops", gateway)

    def rows(self) -> list[dict[str, Any]]:
        """Return what `cost session-hours` shows."""
        document = json.loads(self.cli("cost", "session-hours", "--json"))
        assert document["complete"]
        rows: list[dict[str, Any]] = document["rows"]
        return rows

    def exits(self) -> dict[str, list[int]]:
        """Return the exit codes so far."""
        return {part.name: part.exits for part in self.parts if part.exits}
