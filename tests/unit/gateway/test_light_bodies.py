"""A small body is decoded at once, unless it has so many records that other requests would wait for it."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from benchmarks.handler import serving
from tests.support.gateway import connection, logs_path
from tests.support.otlp_bodies import Group, Record, codex_noise, codex_response, document, encode

from tallystream.schemas.clients import LogsResult, normalise_logs
from tallystream.schemas.otlp import Encoding
from tallystream.schemas.otlp.limits import LIGHT_RECORDS, LIMITS
from tallystream.streams.gateway import acceptance, ingest

UNKNOWN = Record([("tokens", 1)], time_ns=1)


def written(records: list[Record], encoding: Encoding) -> bytes:
    """Return a body without white space."""
    if encoding is Encoding.PROTOBUF:
        return encode([Group(records)], encoding)
    return json.dumps(document([Group(records)]), separators=(",", ":")).encode()


def posted(body: bytes, encoding: Encoding) -> bytes:
    head = f"POST {logs_path()} HTTP/1.1\r\nHost: test\r\nContent-Type: {encoding.value}\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize("encoding", list(Encoding))
def test_body_with_many_records_that_may_count_is_decoded_in_a_thread(
    encoding: Encoding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results: list[tuple[bool, int]] = []
    normalise = normalise_logs

    def watched(*args: Any) -> LogsResult:
        found = normalise(*args)
        on_loop = threading.current_thread() is threading.main_thread()
        results.append((on_loop, found.lost + sum(len(pack.events) for pack in found.packs)))
        return found

    monkeypatch.setattr(ingest, "normalise_logs", watched)
    usual = written([*codex_noise(), codex_response()], encoding)
    few = written([UNKNOWN] * LIGHT_RECORDS, encoding)
    many = written([UNKNOWN] * (LIGHT_RECORDS + 1), encoding)
    assert len(many) < acceptance.LIGHT_BYTES

    async def send_all() -> None:
        async with serving(tmp_path, [connection()]) as send:
            for body in (usual, few, many):
                await send(posted(body, encoding))

    asyncio.run(send_all())
    assert results == [(True, 1), (True, LIGHT_RECORDS), (False, LIGHT_RECORDS + 1)]


def test_light_limits_are_never_larger_than_the_limits() -> None:
    assert LIMITS.light().usage_records == LIGHT_RECORDS
    assert LIMITS.share(1024).light().usage_records == LIMITS.usage_records // 1024
