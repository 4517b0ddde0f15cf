"""Ports that several processes choose concurrently."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from tallystream.schemas.errors import UnreachableError
from tallystream.streams.process import tcp_ports


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(tcp_ports, "BELOW_EPHEMERAL", range(19_990, 19_996))


def test_recently_picked_port_is_not_picked_again() -> None:
    found = {tcp_ports.pick() for _ in tcp_ports.BELOW_EPHEMERAL}
    assert found == set(tcp_ports.BELOW_EPHEMERAL)
    with pytest.raises(UnreachableError, match="no free port"):
        tcp_ports.pick()


def test_port_reservation_expires(tmp_path: Path) -> None:
    first, *_ = [tcp_ports.pick() for _ in tcp_ports.BELOW_EPHEMERAL]
    (kept,) = tmp_path.glob(f"tallystream-ports-*/{first}")
    long_ago = time.time() - tcp_ports.RESERVED_FOR - 1
    os.utime(kept, (long_ago, long_ago))
    assert tcp_ports.pick() == first


def test_used_and_reserved_ports_are_not_picked() -> None:
    with socket.create_server(("127.0.0.1", 19_990)):
        found = {tcp_ports.pick(19_991) for _ in range(len(tcp_ports.BELOW_EPHEMERAL) - 2)}
    assert found == set(tcp_ports.BELOW_EPHEMERAL) - {19_990, 19_991}


def test_ports_are_picked_without_a_directory_for_reservations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/proc/nowhere")
    assert tcp_ports.is_free(tcp_ports.pick())
