"""Bodies: whole or refused, whatever bytes arrive, and never more memory than the limit."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystream.streams.gateway.errors import RequestRefusedError, UndecodableError
from tallystream.streams.gateway.http.body import Body, Budget, decode, decompress

LIMIT = 1 << 20


def raw_deflate(plain: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-15)
    return squeeze.compress(plain) + squeeze.flush()


@given(st.binary(max_size=4096), st.integers(0, 9))
def test_what_was_compressed_comes_back(plain: bytes, level: int) -> None:
    assert decompress(gzip.compress(plain, level), "gzip", LIMIT) == plain
    assert decompress(zlib.compress(plain, level), "deflate", LIMIT) == plain
    assert decompress(zlib.compress(plain, level), "zlib", LIMIT) == plain


@given(st.binary(min_size=1, max_size=2048))
def test_deflate_may_mean_the_raw_form(plain: bytes) -> None:
    assert decompress(raw_deflate(plain), "deflate", LIMIT) == plain


@given(st.lists(st.binary(max_size=512), min_size=1, max_size=5))
def test_members_of_a_gzip_stream_are_one_body(parts: list[bytes]) -> None:
    assert decompress(b"".join(map(gzip.compress, parts)), "gzip", LIMIT) == b"".join(parts)


@given(st.binary(max_size=1024), st.data())
def test_a_truncated_stream_is_refused_wherever_it_is_cut(plain: bytes, data: st.DataObject) -> None:
    whole = gzip.compress(plain)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(UndecodableError):
        decompress(whole[:cut], "gzip", LIMIT)


@given(st.binary(max_size=512))
def test_garbage_is_refused_or_was_none(garbage: bytes) -> None:
    for coding in ("gzip", "deflate", "zlib"):
        with suppress(UndecodableError):
            decompress(garbage, coding, LIMIT)


@given(
    st.binary(max_size=512), st.binary(min_size=1, max_size=64).filter(lambda tail: not tail.startswith(b"\x1f\x8b"))
)
def test_bytes_after_the_end_are_refused(plain: bytes, tail: bytes) -> None:
    for packed, coding in ((gzip.compress(plain), "gzip"), (zlib.compress(plain), "zlib")):
        with pytest.raises(UndecodableError):
            decompress(packed + tail, coding, LIMIT)


@pytest.mark.parametrize("members", [1, 3])
def test_the_limit_holds_for_all_members_together(members: int) -> None:
    part = b"x" * (LIMIT // members)
    packed = gzip.compress(part) * members
    assert len(decompress(packed, "gzip", LIMIT)) == len(part) * members
    with pytest.raises(RequestRefusedError) as refused:
        decompress(packed + gzip.compress(b"xx"), "gzip", LIMIT)
    assert refused.value.status == 413


def test_a_bomb_costs_no_more_memory_than_the_limit() -> None:
    squeeze = zlib.compressobj(9, wbits=31)
    bomb = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(256)) + squeeze.flush()
    tracemalloc.start()
    try:
        with pytest.raises(RequestRefusedError) as refused:
            decompress(bomb, "gzip", LIMIT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused.value.status == 413
    assert peak < 4 * LIMIT


async def test_a_large_body_is_decompressed_just_the_same() -> None:
    plain = bytes(range(256)) * 8192
    budget = Budget(64 << 20, 5)
    with budget.lease() as lease:
        body = Body(gzip.compress(plain, 0), "gzip")
        assert await decode(body, limit=64 << 20, lease=lease) == plain
        assert budget.bytes == len(plain)
    assert budget.bytes == 0


def test_the_budget_refuses_what_is_too_much_at_once_and_gets_everything_back() -> None:
    budget = Budget(100, 7)
    with budget.lease() as first:
        first.take(60)
        with budget.lease() as second, pytest.raises(RequestRefusedError) as refused:
            second.take(41)
        assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "7")
        assert budget.bytes == 60
    assert budget.bytes == 0
