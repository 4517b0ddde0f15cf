"""What a ledger holds: of which deployment, and up to which records."""

from __future__ import annotations

import orjson

from tallystream.agents.ledger.migrations import get_meta
from tallystream.agents.ledger.store.database import Database
from tallystream.streams.identity import Identity
from tallystream.streams.kafka.follower import FollowerPosition


def positions(database: Database) -> dict[tuple[str, int], FollowerPosition]:
    """Return the position of each topic and partition in a ledger."""
    found = database.rows("SELECT topic, partition, next_offset, timestamp FROM ledger_position")
    return {(str(topic), int(at)): FollowerPosition(int(offset), int(time)) for topic, at, offset, time in found}


def identity_of(database: Database) -> Identity | None:
    """Return the identity of a ledger's deployment, None when it does not have one."""
    meta = get_meta(database)
    if "cluster_id" not in meta:
        return None
    return Identity(meta["cluster_id"], meta["prefix"], orjson.loads(meta["topic_ids"]))
