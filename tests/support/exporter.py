"""The exporter as a process, and the values of its metrics."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from tests.support.waiting import ANSWER, PATIENCE, eventually
from tests.support.worker import SRC

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.process.tcp_ports import pick

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class ExporterProcess:
    """`tallystream exporter` on a Kafka, with counters in `data_dir`."""

    def __init__(self, kafka: KafkaSettings, topics: Topics, data_dir: Path) -> None:
        self.port = pick()
        self.log = data_dir.parent / f"{data_dir.name}-exporter.log"
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("TALLYSTREAM_")} | {
            "TALLYSTREAM_PREFIX": topics.prefix,
            "TALLYSTREAM_PARTITIONS": str(topics.partitions),
            "PYTHONPATH": str(SRC),
        }
        argv = ["exporter", "--kafka", kafka.bootstrap, "--data-dir", str(data_dir), "--ops-port", str(self.port)]
        self._argv = [sys.executable, "-m", "tallystream", *argv]
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Start the process, the first or the next one."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )
        return self.process

    def page(self, path: str = "/metrics") -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=ANSWER) as response:
            text: str = response.read().decode()
            return text

    def samples(self) -> Samples:
        """Return every sample by name and labels."""
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.page())
            for sample in family.samples
        }

    def ready(self, seconds: float = PATIENCE) -> None:
        """Wait until lags and counters are shown."""

        def answers() -> bool:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                return bool(self.page("/readyz"))
            except OSError:
                return False

        eventually(answers, "the exporter is ready", seconds)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(ANSWER)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(ANSWER)


@contextlib.contextmanager
def exporter(kafka: KafkaSettings, topics: Topics, data_dir: Path) -> Iterator[ExporterProcess]:
    """Run an exporter for the time of the block."""
    running = ExporterProcess(kafka, topics, data_dir)
    try:
        running.ready()
        yield running
    finally:
        if running.process.poll() is None:
            running.kill()


def of(samples: Samples, name: str, **labels: str) -> float:
    """Return the sum of the samples of a name that have these labels."""
    return sum(
        value for (found, own), value in samples.items() if found == name and labels.items() <= dict(own).items()
    )


def by(samples: Samples, name: str, label: str, **labels: str) -> dict[str, float]:
    """Return the samples of a name that have these labels, by the value of one more."""
    found: dict[str, float] = {}
    for (named, own), value in samples.items():
        if named == name and labels.items() <= dict(own).items():
            key = dict(own)[label]
            found[key] = found.get(key, 0.0) + value
    return found
