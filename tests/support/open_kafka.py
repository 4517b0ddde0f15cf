"""A broker without a login, as an operator's own cluster may be."""

from __future__ import annotations

import contextlib
import signal
import sys
from dataclasses import replace
from pathlib import Path

from typing_extensions import override

from tallystream.streams.embedded.broker import EmbeddedKafka
from tallystream.streams.embedded.config import BrokerConfig, Listener
from tallystream.streams.kafka.settings import KafkaSettings


class OpenKafka(EmbeddedKafka):
    """Apache Kafka as `tallystream up` runs it, but anyone may connect."""

    @property
    @override
    def settings(self) -> KafkaSettings:
        return KafkaSettings(self.bootstrap)

    @override
    def _configure(self) -> BrokerConfig:
        config = super()._configure()
        controller = Listener(config.controller.port, config.controller.name)
        return replace(config, controller=controller, listeners=(Listener(self.port),))


def main() -> None:
    """Run one for the benchmarks that take an address: `python -m tests.support.open_kafka DIR`."""
    with OpenKafka(Path(sys.argv[1])) as broker:
        sys.stdout.write(f"{broker.bootstrap}\n")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
