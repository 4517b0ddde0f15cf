"""The OpenTelemetry Collector as a process of its own: what the gateway is measured beside."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

from tests.support.product import free_port
from tests.support.waiting import eventually

from tallystream.streams.kafka.settings import KafkaSettings

VERSION = "0.155.0"
"""As peers/collector-build.yaml says."""
CONFIG = Path(__file__).with_name("peers") / "collector.yaml"
TOPIC = "collector_logs"
PATH = "/v1/logs"


class Collector:
    """The Collector, without a queue or with its exporter's default one; its log is in `directory`."""

    def __init__(self, binary: Path, kafka: KafkaSettings, directory: Path, *, queue: bool = False) -> None:
        self.port = free_port()
        self._binary = binary
        self._log = directory / "collector.log"
        self._config = directory / f"collector-{self.port}.yaml"
        text = CONFIG.read_text().replace("ENDPOINT", f"127.0.0.1:{self.port}").replace("BROKER", kafka.bootstrap)
        self._config.write_text(text.replace("    sending_queue: {enabled: false}\n", "") if queue else text)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return its process id, once started."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([str(self._binary), "--config", str(self._config)], stdout=log, stderr=log)
        eventually(self._listens, "the Collector listens")

    def end(self, number: int = signal.SIGTERM) -> None:
        """Send a signal, and wait for its end."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
