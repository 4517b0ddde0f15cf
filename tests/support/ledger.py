"""The ledger as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.support.waiting import ANSWER, PATIENCE, eventually
from tests.support.worker import SRC

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.process.tcp_ports import pick


class LedgerProcess:
    """`tallystream ledger` in a data dir, or in PostgreSQL at `url`."""

    def __init__(self, kafka: KafkaSettings, topics: Topics, data_dir: Path, url: str | None = None) -> None:
        self.port = pick()
        data_dir.mkdir(parents=True, exist_ok=True)
        self.log = data_dir.parent / f"{data_dir.name}-ledger-{self.port}.log"
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("TALLYSTREAM_")} | {
            "TALLYSTREAM_PREFIX": topics.prefix,
            "TALLYSTREAM_PARTITIONS": str(topics.partitions),
            "PYTHONPATH": str(SRC),
        }
        if url is not None:
            self.environment["TALLYSTREAM_LEDGER"] = url
        argv = ["ledger", "--kafka", kafka.bootstrap, "--data-dir", str(data_dir), "--ops-port", str(self.port)]
        self._argv = [sys.executable, "-m", "tallystream", *argv]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment
            )

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def status(self) -> dict[str, Any]:
        """Return the detail of `/status`, empty without an answer."""
        assert self.process is not None
        assert self.process.poll() is None, self.said()[-3000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status", timeout=ANSWER) as response:
                return json.loads(response.read())["detail"] or {}
        except OSError:
            return {}

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=ANSWER) as response:
            text: str = response.read().decode()
            return text

    def active(self) -> None:
        eventually(lambda: self.status().get("active"), lambda: f"the ledger writes:\n{self.said()[-2000:]}", PATIENCE)

    def caught_up(self) -> None:
        """Wait until it has read everything that was in the topics when it opened them."""
        eventually(
            lambda: (found := self.status()).get("active") and found["caught_up"] and not found["behind"],
            lambda: f"the ledger has caught up:\n{self.said()[-2000:]}",
            PATIENCE,
        )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(ANSWER)

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(ANSWER)
