"""`spool list` and `spool recover`: set-aside messages are recovered, and no file is deleted."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tests.unit.gateway.test_spool_slots import OWNER, PREFIX, damage, made, numbered, opened, rows_of
from typer.testing import CliRunner

from tallystream.cli import build
from tallystream.schemas.errors import UsageError
from tallystream.streams.gateway.spool.inventory import inventory, recover
from tallystream.streams.gateway.spool.slots import damaged, slot_path


def states(directory: Path) -> dict[str, tuple[str, int | None]]:
    return {one.path.name.partition(".aside")[0]: (one.state, one.messages) for one in inventory(directory, PREFIX)}


async def test_spool_list_shows_deployment_and_contents_of_each_file(tmp_path: Path) -> None:
    made(slot_path(tmp_path, "other", 0), 5, prefix="other", topic="other.usage")
    made(slot_path(tmp_path, PREFIX, 3), 7)
    spool = await opened(tmp_path)
    assert states(tmp_path) == {
        "spool-other-0.db": ("foreign", 5),
        "spool-t-0.db": ("in use", 0),
        "spool-t-3.db": ("in use", 7),
    }
    await spool.close()
    assert states(tmp_path)["spool-t-3.db"] == ("ours", 7)


async def test_messages_of_another_prefix_can_be_recovered_here(tmp_path: Path) -> None:
    made(slot_path(tmp_path, "other", 0), 5, prefix="other", topic="other.usage")
    spool = await opened(tmp_path)
    await spool.claim("this-cluster")
    assert await rows_of(spool) == []
    done = recover(tmp_path, "spool-other-0.db", PREFIX, OWNER.topics)
    assert (done.messages, done.complete, done.kept.exists()) == (5, True, True)
    await spool.look_around()
    assert set(await rows_of(spool)) == set(numbered(5, 100))
    assert spool.surroundings.foreign_messages == 0
    await spool.close()


async def test_damaged_spool_file_is_recovered_and_kept(tmp_path: Path) -> None:
    path = slot_path(tmp_path, PREFIX, 0)
    made(path, 2000)
    damage(path, random.Random(4))
    await (await opened(tmp_path)).close()
    (aside,) = damaged(tmp_path)
    done = recover(tmp_path, aside.name, PREFIX, OWNER.topics)
    assert not done.complete
    assert 1500 < done.messages < 2000
    assert (damaged(tmp_path), done.kept.exists()) == ([], True)
    spool = await opened(tmp_path)
    assert len(set(await rows_of(spool))) == done.messages
    await spool.close()


def test_missing_spool_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not contain a spool"):
        recover(tmp_path, "spool-t-9.db", PREFIX, frozenset())


def test_spool_commands_print_json(tmp_path: Path) -> None:
    made(slot_path(tmp_path / "gateway", "other", 0), 5, prefix="other", topic="other.deadletters")
    run = CliRunner()
    listed = run.invoke(build(), ["spool", "list", "--json", "--data-dir", str(tmp_path)])
    assert [(one["state"], one["messages"]) for one in json.loads(listed.output)["spools"]] == [("foreign", 5)]
    done = run.invoke(build(), ["spool", "recover", "spool-other-0.db", "--json", "--data-dir", str(tmp_path)])
    assert json.loads(done.output)["messages"] == 5
    shown = run.invoke(build(), ["spool", "list", "--data-dir", str(tmp_path)])
    assert "spool-tallystream-0.db" in shown.output
