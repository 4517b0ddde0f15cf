"""A dead letter's key: one for each record of each connection, and the same when a body is sent again."""

from __future__ import annotations

from tests.support.otlp_bodies import Group, codex_response, encode

from tallystream.schemas.otlp import Encoding
from tallystream.streams.gateway.ingest import Messages, decode, digest_of
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.service.clock import SystemClock

MESSAGES = Messages(Topics("t"), lambda user: user, SystemClock())


def keys_of(body: bytes, connection_id: str) -> list[bytes]:
    """Return the keys of a body that cannot be decoded, and of one whose records cannot be counted."""
    timeless = encode([Group([codex_response(at_ns=0), codex_response(at_ns=0, output=91)])], Encoding.JSON)
    logs = decode(timeless, Encoding.JSON, "logs").logs
    assert logs is not None
    letters = MESSAGES.rejected(logs.rejected, digest_of(timeless), connection_id)
    assert len(letters) == 2
    letters.append(MESSAGES.undecodable("not JSON", len(body), digest_of(body), connection_id))
    return [letter.key for letter in letters]


def test_equal_bodies_of_two_connections_do_not_overwrite_each_others_letters() -> None:
    first, again, second = keys_of(b"{", "codex-1"), keys_of(b"{", "codex-1"), keys_of(b"{", "codex-2")
    assert first == again
    assert len({*first, *second}) == 6
