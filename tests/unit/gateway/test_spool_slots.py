"""One spool, one owner: locks that end with their process, abandoned spools found, unreadable ones set aside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tallystream.schemas.errors import UnfitError
from tallystream.streams.gateway.message import Message
from tallystream.streams.gateway.spool.file import SpoolFile
from tallystream.streams.gateway.spool.slots import Slot
from tallystream.streams.gateway.spool.spool import Spool
from tallystream.streams.service.clock import SystemClock

MESSAGE = Message("t.usage", b"k", b"v", "usage-batch/1")
HOLDER = """
import sys, pathlib
from tallystream.streams.gateway.spool.slots import Slot
slot = Slot.take_lowest(pathlib.Path(sys.argv[1]))
print(slot.number, flush=True)
sys.stdin.read()
"""


async def opened(directory: Path) -> Spool:
    return await Spool.open(directory, max_bytes=1 << 20, quarantine_max_bytes=1 << 20, clock=SystemClock())


def contents(directory: Path, pattern: str) -> list[bytes]:
    return [path.read_bytes() for path in directory.glob(pattern)]


def test_each_owner_gets_a_slot_of_its_own_and_a_free_one_again(tmp_path: Path) -> None:
    first, second = Slot.take_lowest(tmp_path), Slot.take_lowest(tmp_path)
    assert (first.number, second.number) == (0, 1)
    first.release()
    assert Slot.take(tmp_path, 1) is None
    third = Slot.take_lowest(tmp_path)
    assert third.number == 0
    second.release()
    third.release()


def test_a_killed_process_holds_no_lock(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"0\n"
    assert Slot.take(tmp_path, 0) is None
    holder.kill()
    holder.communicate()
    slot = Slot.take(tmp_path, 0)
    assert slot is not None
    slot.release()


async def test_a_dead_gateways_spool_is_adopted_and_a_living_ones_is_not(tmp_path: Path) -> None:
    ours = await opened(tmp_path)
    living = await opened(tmp_path)
    await living.put([MESSAGE])
    dead = SpoolFile(tmp_path / "spool-7.db", max_bytes=1 << 20, quarantine_max_bytes=1 << 20)
    dead.put([MESSAGE] * 3, 1)
    dead.close()
    assert await ours.adopt_abandoned() == 3
    assert ours.level.rows == 3
    assert ours.filled.is_set()
    assert not (tmp_path / "spool-7.db").exists()
    assert not (tmp_path / "spool-7.lock").exists()
    assert living.level.rows == 1
    assert await ours.adopt_abandoned() == 0
    await living.close()
    await ours.close()


async def test_a_restarted_gateway_finds_its_own_spool(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    name = await spool.meta("gateway", "gw-1")
    await spool.put([MESSAGE])
    await spool.close()
    again = await opened(tmp_path)
    assert (again.level.rows, again.filled.is_set(), again.emptied.is_set()) == (1, True, False)
    assert await again.meta("gateway", "gw-2") == name == "gw-1"
    await again.close()


async def test_a_file_that_is_no_spool_is_set_aside_for_a_person(tmp_path: Path) -> None:
    (tmp_path / "spool-0.db").write_bytes(b"this is no database, but it may be all that is left" * 100)
    spool = await opened(tmp_path)
    await spool.put([MESSAGE])
    await spool.close()
    assert [content[:19] for content in contents(tmp_path, "spool-0.unreadable-*")] == [b"this is no database"]


async def test_an_unreadable_abandoned_spool_is_left_alone(tmp_path: Path) -> None:
    ours = await opened(tmp_path)
    (tmp_path / "spool-3.db").write_bytes(b"garbage" * 1000)
    assert await ours.adopt_abandoned() == 0
    assert (tmp_path / "spool-3.db").read_bytes().startswith(b"garbage")
    assert await ours.adopt_abandoned() == 0
    await ours.close()


def test_a_directory_that_cannot_be_used_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnfitError, match="spool directory"):
        Slot.take_lowest(tmp_path / "file" / "gateway")
