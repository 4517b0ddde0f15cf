"""Each spool has one owner: locks end with their process, and spools outlive it."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tallystream.streams.gateway.errors import SpoolWriteError
from tallystream.streams.gateway.message import Message
from tallystream.streams.gateway.spool import files
from tallystream.streams.gateway.spool.file import ActivityRow, Held, SpoolFile
from tallystream.streams.gateway.spool.files import Owner
from tallystream.streams.gateway.spool.inventory import inventory
from tallystream.streams.gateway.spool.salvage import salvage
from tallystream.streams.gateway.spool.slots import Slot, damaged, slot_path, spools
from tallystream.streams.gateway.spool.spool import Spool
from tallystream.streams.service.clock import SystemClock

PREFIX = "t"
OWNER = Owner(PREFIX, frozenset({"t.usage"}))
MESSAGE = Message("t.usage", b"k", b"v", "usage-batch/1")
HELD = ("ab" * 32, "codex", None, b"{}")
HOLDER = """
import sys, pathlib
from tallystream.streams.gateway.spool.slots import Slot
slot = Slot.take(pathlib.Path(sys.argv[1]))
print(slot is not None, flush=True)
sys.stdin.read()
"""


def numbered(count: int, size: int = 0) -> list[Message]:
    return [MESSAGE._replace(value=b"%d" % number + b"x" * size) for number in range(count)]


async def opened(directory: Path, owner: Owner = OWNER, salvaged: Callable[[int], None] = lambda _: None) -> Spool:
    return await Spool.open(
        directory,
        owner,
        max_bytes=1 << 24,
        quarantine_max_bytes=1 << 20,
        clock=SystemClock(),
        salvaged=salvaged,
    )


async def rows_of(spool: Spool) -> list[Message]:
    """Return all messages that may be drained."""
    found = []
    for lane in spool.lanes():
        found += [row.message for row in await spool.read(lane, max_bytes=1 << 24, limit=10_000)]
    return found


async def drain(spool: Spool) -> None:
    for lane in spool.lanes():
        await spool.delete([row.id for row in await spool.read(lane, max_bytes=1 << 24, limit=10_000)])


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a file as a backup tool does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            db.execute("ROLLBACK")


def made(path: Path, count: int, *, prefix: str = PREFIX, cluster: str = "", topic: str = "t.usage") -> None:
    """Leave a spool behind, as a killed gateway does."""
    path.parent.mkdir(exist_ok=True)
    file = SpoolFile(path, max_bytes=1 << 24, quarantine_max_bytes=1 << 20)
    if prefix:
        file.belong(prefix, cluster)
    file.put([one._replace(topic=topic) for one in numbered(count, 100)], 1)
    file.close()


def test_spool_slot_has_one_owner_until_released(tmp_path: Path) -> None:
    path = slot_path(tmp_path, PREFIX, 0)
    first = Slot.take(path)
    assert first is not None
    assert Slot.take(path) is None
    first.release()
    second = Slot.take(path)
    assert second is not None
    second.release()


@pytest.mark.thorough
def test_killed_process_releases_its_lock(tmp_path: Path) -> None:
    path = slot_path(tmp_path, PREFIX, 0)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"True\n"
    assert Slot.take(path) is None
    holder.kill()
    holder.communicate()
    slot = Slot.take(path)
    assert slot is not None
    slot.release()


async def test_only_spools_of_ended_gateways_are_adopted(tmp_path: Path) -> None:
    ours, living = await opened(tmp_path), await opened(tmp_path)
    await living.put([MESSAGE])
    made(slot_path(tmp_path, PREFIX, 7), 3)
    await ours.look_around()
    assert ours.level.rows == 3
    assert ours.filled.is_set()
    await drain(ours)
    assert not slot_path(tmp_path, PREFIX, 7).exists()
    assert ours.emptied.is_set()
    assert living.level.rows == 1
    await living.close()
    await ours.close()


async def test_restarted_gateway_finds_its_spooled_messages(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    await spool.put([MESSAGE])
    await spool.hold(*HELD)
    await spool.close()
    again = await opened(tmp_path)
    assert (again.level.rows, again.filled.is_set(), again.emptied.is_set()) == (1, True, False)
    assert [row.request.provider for row in await again.held()] == ["codex"]
    await again.close()


async def test_empty_spool_keeps_its_gateways_name(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    name = await spool.meta("gateway", "gw-1")
    await spool.close()
    again = await opened(tmp_path)
    assert await again.meta("gateway", "gw-2") == name == "gw-1"
    await again.close()


async def test_name_and_counts_continue_although_another_spool_is_not_empty(tmp_path: Path) -> None:
    counts = [ActivityRow("codex-1", "logs", 5, 2, 30)]
    spool = await opened(tmp_path)
    assert await spool.meta("gateway", "gw-1") == "gw-1"
    await spool.save_activity(counts)
    await spool.put([MESSAGE])
    await spool.close()
    for _ in range(2):
        again = await opened(tmp_path)
        assert await again.meta("gateway", "gw-2") == "gw-1"
        assert await again.load_activity() == counts
        await again.close()


@pytest.mark.parametrize("trouble", ["locked", "newer format", "directory in its place"])
async def test_unopenable_spool_is_replaced_and_drained_later(tmp_path: Path, trouble: str) -> None:
    path = slot_path(tmp_path, PREFIX, 0)
    made(path, 200)

    def change_format(number: str) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("UPDATE meta SET value = ? WHERE name = 'format'", (number,))

    spool = None
    try:
        if trouble == "locked":
            with locked(path):
                spool = await opened(tmp_path)
                await spool.put([MESSAGE])
        elif trouble == "newer format":
            change_format("9")
            spool = await opened(tmp_path)
            await spool.put([MESSAGE])
            assert spool.surroundings.unopened == 1
            change_format("1")
        else:
            path.rename(tmp_path / "kept")
            path.mkdir()
            spool = await opened(tmp_path)
            await spool.put([MESSAGE])
            assert spool.surroundings.unopened == 1
            path.rmdir()
            (tmp_path / "kept").rename(path)
        assert spool.writable
        await spool.look_around()
        assert spool.surroundings.unopened == 0
        assert len(await rows_of(spool)) == 201
        assert damaged(tmp_path) == []
    finally:
        if spool is not None:
            await spool.close()


async def test_spool_locked_during_a_write_is_replaced(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    await spool.put([MESSAGE])
    with locked(spool.path):
        await spool.put(numbered(3))
    assert len(await rows_of(spool)) == 4
    await drain(spool)
    assert spool.emptied.is_set()
    await spool.close()


async def test_missing_writable_file_is_reported_and_retried(tmp_path: Path) -> None:
    (tmp_path / "gateway").write_text("in the way")
    spool = await opened(tmp_path / "gateway")
    assert not spool.writable
    with pytest.raises(SpoolWriteError, match="cannot be used"):
        await spool.put([MESSAGE])
    (tmp_path / "gateway").unlink()
    await spool.look_around()
    await spool.put([MESSAGE])
    assert spool.level.rows == 1
    await spool.close()


async def test_locks_do_not_leak_when_opens_fail(tmp_path: Path) -> None:
    for number in range(3):
        made(slot_path(tmp_path, PREFIX, number), 1)
        with closing(sqlite3.connect(slot_path(tmp_path, PREFIX, number), isolation_level=None)) as db:
            db.execute("UPDATE meta SET value = '9' WHERE name = 'format'")
    spool = await opened(tmp_path)
    taken = [Slot.take(slot_path(tmp_path, PREFIX, number)) for number in range(3)]
    assert None not in taken
    for slot in taken:
        assert slot is not None
        slot.release()
    await spool.close()


async def test_spool_of_another_deployment_is_kept_and_counted_but_not_sent(tmp_path: Path) -> None:
    made(slot_path(tmp_path, "other", 0), 5, prefix="other", topic="other.usage")
    made(slot_path(tmp_path, PREFIX, 0), 7, cluster="another-cluster")
    made(slot_path(tmp_path, PREFIX, 1), 11, cluster="this-cluster")
    made(slot_path(tmp_path, PREFIX, 2), 13)
    made(tmp_path / "spool-0.db", 17, prefix="")
    made(tmp_path / "spool-1.db", 19, prefix="", topic="other.usage")
    spool = await opened(tmp_path)
    await spool.claim("this-cluster")
    assert len(await rows_of(spool)) == 11 + 13 + 17
    assert (spool.surroundings.foreign_files, spool.surroundings.foreign_messages) == (3, 5 + 7 + 19)
    await drain(spool)
    await spool.look_around()
    await spool.close()
    assert {"spool-other-0.db", "spool-t-0.db", "spool-1.db"} <= {path.name for path in spools(tmp_path)}
    there = await opened(tmp_path, Owner("other", frozenset({"other.usage"})))
    assert len(await rows_of(there)) == 5 + 19
    await there.close()


async def test_mixed_version_1_spool_sends_only_our_messages(tmp_path: Path) -> None:
    made(tmp_path / "spool-0.db", 2, prefix="")
    file = SpoolFile(tmp_path / "spool-0.db", max_bytes=1 << 20, quarantine_max_bytes=0)
    file.put([MESSAGE._replace(topic="other.usage")] * 3, 1)
    file.close()
    spool = await opened(tmp_path)
    await drain(spool)
    await spool.look_around()
    assert (spool.level.rows, spool.surroundings.foreign_messages) == (0, 3)
    there = await opened(tmp_path, Owner("other", frozenset({"other.usage"})))
    assert len(await rows_of(there)) == 3
    await there.close()
    await spool.close()


async def test_messages_spooled_before_any_cluster_go_to_the_first_one(tmp_path: Path) -> None:
    first = await opened(tmp_path)
    await first.claim("cluster-a")
    await first.put([MESSAGE])
    await drain(first)
    await first.close()
    spool = await opened(tmp_path)
    await spool.put(numbered(4))
    assert await spool.claim("cluster-b"), "the counts in the file were of another cluster"
    assert len(await rows_of(spool)) == 4
    await spool.close()


async def test_messages_spooled_without_kafka_belong_to_the_last_known_cluster(tmp_path: Path) -> None:
    spool = await opened(tmp_path, replace(OWNER, last_met="cluster-a"))
    await spool.put(numbered(4))
    await spool.close()
    elsewhere = await opened(tmp_path)
    await elsewhere.claim("cluster-b")
    assert (elsewhere.level.rows, elsewhere.surroundings.foreign_messages) == (0, 4)
    await elsewhere.close()
    back = await opened(tmp_path)
    await back.claim("cluster-a")
    assert len(await rows_of(back)) == 4
    await back.close()


async def test_messages_for_a_cluster_never_reached_wait_for_a_gateway_with_its_address(tmp_path: Path) -> None:
    """Nobody knows the id of the cluster that was meant, and the gateway that comes next may have another one."""
    meant = replace(OWNER, addresses=frozenset({"there-1:9092", "there-2:9092"}))
    spool = await opened(tmp_path, meant)
    await spool.put(numbered(4))
    await spool.hold(*HELD)
    await spool.close()
    here = await opened(tmp_path, replace(OWNER, addresses=frozenset({"here:9092"})))
    await here.claim("cluster-a")
    assert (here.level.rows, here.quarantine_level.rows, here.surroundings.foreign_messages) == (0, 0, 5)
    await here.close()
    (listed,) = [one for one in inventory(tmp_path, PREFIX) if one.messages]
    assert (listed.cluster_id, listed.addresses) == ("", ("there-1:9092", "there-2:9092"))
    there = await opened(tmp_path, replace(OWNER, addresses=frozenset({"there-2:9092", "there-3:9092"})))
    await there.claim("cluster-b")
    assert (len(await rows_of(there)), there.quarantine_level.rows) == (4, 1)
    await there.close()


async def test_other_cluster_at_the_same_address_gets_no_messages_of_the_first(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    await spool.claim("cluster-a")
    await spool.put(numbered(4))
    await spool.claim("cluster-b")
    assert (spool.level.rows, spool.surroundings.foreign_messages) == (0, 4)
    await spool.put([MESSAGE])
    assert await rows_of(spool) == [MESSAGE]
    await spool.close()


def damage(path: Path, rng: random.Random) -> None:
    """Overwrite a page in the middle of the file."""
    raw = bytearray(path.read_bytes())
    page = rng.randrange(8, len(raw) // 4096 - 1)
    raw[page * 4096 : (page + 1) * 4096] = rng.randbytes(4096)
    path.write_bytes(raw)


async def test_damaged_spool_is_set_aside_and_its_readable_rows_copied(tmp_path: Path) -> None:
    path = slot_path(tmp_path, PREFIX, 0)
    made(path, 2000)
    damage(path, random.Random(4))
    told: list[int] = []
    spool = await opened(tmp_path, salvaged=told.append)
    for lane in spool.lanes():
        try:
            await spool.read(lane, max_bytes=1 << 24, limit=10_000)
        except SpoolWriteError:
            break
    saved = set(await rows_of(spool))
    assert 1500 < len(saved) < 2000
    assert saved <= set(numbered(2000, 100))
    assert len(damaged(tmp_path)) == 1
    await spool.look_around()
    assert spool.surroundings.damaged == 1
    assert sum(told) == len(saved)
    await spool.close()


async def test_file_that_is_not_a_database_is_set_aside(tmp_path: Path) -> None:
    path = slot_path(tmp_path, PREFIX, 0)
    path.write_bytes(b"this is no database, but it may be all that is left" * 100)
    spool = await opened(tmp_path)
    await spool.put([MESSAGE])
    await spool.close()
    (aside,) = damaged(tmp_path)
    assert aside.read_bytes().startswith(b"this is no database")


async def test_damaged_spool_of_another_deployment_is_not_changed(tmp_path: Path) -> None:
    path = slot_path(tmp_path, "other", 0)
    path.write_bytes(b"garbage" * 1000)
    spool = await opened(tmp_path)
    assert path.read_bytes().startswith(b"garbage")
    assert damaged(tmp_path) == []
    await spool.close()


@pytest.mark.parametrize("seed", range(8))
def test_salvage_reads_rows_after_the_damage(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "spool.db"
    made(path, 3000)
    file = SpoolFile(path, quarantine_max_bytes=1 << 20)
    file.hold(Held(0, 1, *HELD))
    file.close()
    assert len(salvage(path).messages) == 3000
    assert salvage(path).complete
    damage(path, random.Random(seed))
    found = salvage(path)
    assert 2000 < len(found.messages) <= 3000
    assert {message for _, message in found.messages} <= set(numbered(3000, 100))
    assert len({message for _, message in found.messages}) == len(found.messages)


async def test_unwritable_disk_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = await opened(tmp_path)
    monkeypatch.setattr(files, "OTHER_FILE_EVERY", 0.0)
    monkeypatch.setattr(SpoolFile, "put", _fails)
    for _ in range(5):
        with pytest.raises(SpoolWriteError, match="full"):
            await spool.put([MESSAGE])
    monkeypatch.undo()
    await spool.put([MESSAGE])
    await spool.close()
    assert len(spools(tmp_path)) == 1


def _fails(*_: object) -> None:
    raise SpoolWriteError("database or disk is full")
