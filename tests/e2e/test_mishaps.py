"""Mishaps of machines and users on the whole product: every event that was answered 200 must count once."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.otlp_bodies import Group, codex_response, encode
from tests.support.power_cut import batches
from tests.support.product import COMMAND, READY, Product
from tests.support.waiting import ANSWER, eventually

from tallystream.schemas.otlp import Encoding

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
SESSIONS = [f"session-{number}" for number in range(24)]


class Deployed:
    """A product with a connection, and the requests that it answered with 200."""

    def __init__(self, data_dir: Path, environment: dict[str, str] | None = None) -> None:
        self.product = Product(data_dir, environment)
        self.logs_url = ""
        self.sent: Counter[str] = Counter()
        self._number = 0

    @contextmanager
    def up(self, *prefix: str) -> Iterator[Product]:
        """Run it for the duration of the block; `prefix` is put before the command."""
        try:
            self.product.up(seconds=READY, prefix=prefix)
            if not self.logs_url:
                self.logs_url = self.product.json("connections", "create", "codex")["logs_url"]
            yield self.product
            assert self.product.down() == 0
        finally:
            self.product.kill()

    def send(self, sessions: list[str], events: int = 1) -> None:
        """Send a number of events of each session, each in its own request."""
        for session in sessions:
            for _ in range(events):
                self._number += 1
                record = codex_response(session, at_ns=time.time_ns() + self._number)
                request = urllib.request.Request(
                    self.logs_url,
                    encode([Group([record])], Encoding.JSON),
                    {"Content-Type": "application/json"},
                )
                with urllib.request.urlopen(request, timeout=ANSWER) as response:
                    assert response.status == 200
                self.sent[session] += 1

    def counted(self) -> Counter[str]:
        """Return the tables once everything is caught up."""
        self.product.cli("wait", "--caught-up", "--timeout", "180")
        found: Counter[str] = Counter()
        for row in self.product.json("cost", "sessions", "--from-topics")["rows"]:
            found[row["session_id"]] += row["requests"]
        return found

    def in_ledger(self) -> Counter[str] | None:
        """Return what the ledger has, None while there is none."""
        rows = self.product.sql("SELECT session_id, sum(requests) AS requests FROM session_hours GROUP BY session_id")
        return None if rows is None else Counter({row["session_id"]: row["requests"] for row in rows})


def well(product: Product) -> bool:
    """Tell whether `doctor` finds nothing."""
    return not subprocess.run(
        product.command("doctor"), env=product.environment, capture_output=True, timeout=COMMAND, check=False
    ).returncode


def stores(product: Product) -> Path:
    return product.data_dir / "workers"


def test_restored_or_foreign_local_stores_are_not_used(tmp_path: Path) -> None:
    """Another prefix on the same directory, the way back, an older copy of the product's own store, a new cluster."""
    here = Deployed(tmp_path / "data")
    with here.up() as product:
        here.send(SESSIONS)
        assert here.counted() == here.sent
    shutil.copytree(stores(product), tmp_path / "older")
    other = Deployed(product.data_dir, {"TALLYSTREAM_PREFIX": "another"})
    with other.up():
        # More events than in the first deployment, so its store has read beyond the end of that changelog.
        other.send(SESSIONS, events=3)
        assert other.counted() == other.sent, "another prefix on the same directory"
    with here.up():
        here.send(SESSIONS)
        assert here.counted() == here.sent, "another deployment's store was read"
        assert (product.data_dir / "logs" / "worker.log").read_text().count("state_set_aside") == 2
        eventually(lambda: well(product), "the doctor finds nothing, once everything has started")
    shutil.rmtree(stores(product))
    shutil.copytree(tmp_path / "older", stores(product))
    with here.up():
        here.send(SESSIONS)
        assert here.counted() == here.sent, "an older store was taken for all there is"
    shutil.rmtree(product.data_dir / "kafka")
    anew = Deployed(product.data_dir)
    with anew.up():
        anew.send(SESSIONS)
        assert anew.counted() == anew.sent, "state of the cluster that is gone was read"
        eventually(lambda: anew.in_ledger() == anew.sent, "the ledger has the new cluster's rows and no others")


def test_product_recovers_from_a_power_cut_and_reports_the_loss(tmp_path: Path) -> None:
    """Everything is killed, and the last counted batch of a partition of `usage` was not on the disk."""
    here = Deployed(tmp_path / "here")
    with here.up() as product:
        here.send(SESSIONS, events=2)
        assert here.counted() == here.sent
        product.kill()
        logs = sorted((product.data_dir / "kafka" / "log").glob("tallystream.usage-*/*.log"))
        cut = next(log for log in logs if len(batches(log)) > 2)
        last = batches(cut)[-1]
        os.truncate(cut, last.at)
        product.up(seconds=READY)
        here.send(SESSIONS)
        assert here.counted() == here.sent, "what was counted stays counted, what comes is counted once"
        (letter,) = product.json("deadletters", "list")["deadletters"]
        partition = cut.parent.name.rpartition("-")[2]
        assert letter["reason"] == "records_lost"
        assert letter["source"] == f"usage|{partition}|{last.first}-{last.last}|0"


def renamed(name: str) -> tuple[str, ...]:
    """Return what runs a command on a machine with another name."""
    return ("unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh")


def may_rename() -> bool:
    if shutil.which("unshare") is None:
        return False
    done = subprocess.run([*renamed("elsewhere"), "hostname"], capture_output=True, check=False)
    return done.stdout == b"elsewhere\n"


@pytest.mark.skipif(not may_rename(), reason="needs the right to give a process another host name (root)")
def test_renamed_machine_starts_immediately(tmp_path: Path) -> None:
    here = Deployed(tmp_path / "here")
    for starts, name in enumerate(("at-home", "at-work"), 1):
        with here.up(*renamed(name)):
            here.send(SESSIONS[:5])
            assert here.counted() == here.sent
            said = (here.product.data_dir / "logs" / "worker.log").read_text()
            assert said.count("worker_started") == starts, "it hung, and was ended and started again"
