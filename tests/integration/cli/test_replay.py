"""`tallystream deadletters replay`: refused events that may now count are counted once, however often they are
replayed.
"""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from tests.chaos.hand import DAY, World, world
from tests.integration.cli.conftest import Cli
from tests.support.topics import produce
from tests.support.usage import Event, Session

from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import Reason
from tallystream.streams.kafka.settings import KafkaSettings

pytestmark = pytest.mark.kafka


@pytest.fixture
def one_partition(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("TALLYSTREAM_PARTITIONS", "1")
    return cli


async def requests(here: World) -> dict[str, int]:
    """Return the requests in each session's rows; the oracle must agree."""
    book = await here.ledger()
    assert await here.problems() == []
    return {key.decode().split("|")[1]: sum(b["requests"] for b in row["buckets"]) for key, row in book.rows.items()}


async def test_late_letters_can_be_replayed_into_a_deployment_with_longer_lateness(
    one_partition: Cli, kafka: KafkaSettings, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALLYSTREAM_LATENESS", "P30D")
    async with world(kafka, prefix, tmp_path) as here, world(kafka, f"{prefix}-old", tmp_path) as other:
        await here.send(("s1", [here.event(10), here.event()]), ("s2", [here.event(12)]))
        await (await here.hand()).work()
        assert await requests(here) == {"s1": 1}

        said = (await asyncio.to_thread(one_partition, "deadletters", "replay", "--json")).document
        assert said["replayed"] == 0
        assert said["skipped"] == {"too_late: its hour is closed in this deployment: --into another one": 2}

        into = ("deadletters", "replay", "--into", f"{prefix}-old", "--json")
        assert (await asyncio.to_thread(one_partition, *into, "--dry-run")).document["replayed"] == 2
        assert await other.usage() == []
        for _ in range(2):
            assert (await asyncio.to_thread(one_partition, *into)).document["replayed"] == 2
        await (await other.hand(lateness=30 * DAY)).work()
        assert await requests(other) == {"s1": 1, "s2": 1}
        copies = sum(row["duplicates"] for row in (await other.ledger()).rows.values())
        assert copies == 2
        assert len(await here.usage()) == 2, "nothing came back to where it was refused"


def crafted(reason: Reason, event: Event, session: Session, source: str) -> tuple[bytes, bytes, int]:
    record = orjson.loads(session.message([event]))
    letter = DeadLetter(
        source=source, reason=reason, detail="d", at=datetime.now(UTC), connection_id=session.connection_id,
        client="codex", session_id=session.session_id,
        record=event if reason is Reason.UNKNOWN_CONNECTION else record,
    )  # fmt: skip
    return source.encode(), letter.model_dump_json(exclude_none=True).encode(), 0


async def test_replay_counts_early_events_later_and_unknown_ones_after_assignment(
    one_partition: Cli, kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    async with world(kafka, prefix, tmp_path) as here:
        ahead = here.event() | {"occurred_at": (int(datetime.now(UTC).timestamp()) + 3 * 86_400) * 10**9}
        letters = [
            crafted(Reason.FROM_THE_FUTURE, here.event(), Session("codex-7f3a", "s1", None, "r"), "usage|0|901|0"),
            crafted(Reason.FROM_THE_FUTURE, ahead, Session("codex-7f3a", "s2", None, "r"), "usage|0|902|0"),
            crafted(Reason.UNKNOWN_CONNECTION, here.event(), Session("x", "s3", None, "r"), "gateway|ab|q0"),
            crafted(Reason.NO_SESSION, {"model": "m"}, Session("x", "s4", None, "r"), "gateway|ab|0"),
        ]
        await produce(kafka, here.topics.deadletters.name, letters)
        replay = ("deadletters", "replay", "--json")
        said = (await asyncio.to_thread(one_partition, *replay)).document
        assert said["replayed"] == 1
        until = datetime.fromtimestamp(ahead["occurred_at"] // 10**9, UTC) - timedelta(days=1)
        assert sorted(why.split(f"{until:%Y-%m-%d}")[0] for why in said["skipped"]) == [
            "from_the_future: it lies a day or more ahead until ",
            "no_session: this version still does not recognise it as usage; a newer one may",
            "unknown_connection: it does not belong to a connection: choose one with --connection",
        ]
        said = (await asyncio.to_thread(one_partition, *replay, "--connection", "codex-7f3a")).document
        assert said["replayed"] == 2
        said = (await asyncio.to_thread(one_partition, *replay, "usage|0|901|0")).document
        assert said["replayed"] == 1
        await (await here.hand()).work()
        book = await here.ledger()
        counted = {k.decode().split("|")[1]: sum(b["requests"] for b in r["buckets"]) for k, r in book.rows.items()}
        assert counted == {"s1": 1, "s3": 1}
        assert {k.decode().split("|")[0] for k in book.rows} == {"codex-7f3a"}


def test_replay_of_an_unknown_source_is_an_error(one_partition: Cli, kafka: KafkaSettings) -> None:
    assert os.environ["TALLYSTREAM_PARTITIONS"] == "1"
    said = one_partition("deadletters", "replay", "usage|9|9|9")
    assert said.code == 2
    assert "no dead letter has the source" in said.err
