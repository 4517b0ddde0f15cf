"""Decompression: complete bodies or refusals, with limits on the size and the number of members."""

from __future__ import annotations

import contextlib
import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tallystream.streams.gateway.decompress import coding_named, coding_of, decompress
from tallystream.streams.gateway.errors import RequestRefusedError, UndecodableError

LIMIT = 8 << 20
PLAIN = random.Random(1).randbytes(150_000) + b"a" * 3_000_000
"""Some of it is incompressible, and most of it compresses a thousandfold."""


def raw_deflate(plain: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(plain) + packer.flush()


def zstd_with_checksum(plain: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(plain)


def zstd_of_unknown_length(plain: bytes) -> bytes:
    return zstandard.ZstdCompressor().stream_reader(plain).read()


PACKERS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("zstd", zstd_with_checksum),
    ("zstd", zstd_of_unknown_length),
]
EACH = pytest.mark.parametrize(("coding", "pack"), PACKERS)


@EACH
@pytest.mark.parametrize("plain", [b"", b"x", PLAIN])
def test_compressed_body_is_decompressed(coding: str, pack: Callable[[bytes], bytes], plain: bytes) -> None:
    assert decompress(pack(plain), coding, LIMIT) == plain


@EACH
def test_truncated_body_is_refused(coding: str, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(PLAIN)
    for cut in (1, 2, 3, 4, 5, 8, 9, 100, len(packed) // 2, len(packed) - 5, len(packed) - 1, len(packed)):
        with pytest.raises(UndecodableError):
            decompress(packed[:-cut], coding, LIMIT)


@EACH
def test_trailing_bytes_are_refused(coding: str, pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(UndecodableError):
        decompress(pack(b"abc") + b"more", coding, LIMIT)


def test_reason_says_what_is_wrong_with_a_gzip_body() -> None:
    packed = gzip.compress(PLAIN)
    for body, says in (
        (packed + b"more", "after the end of the gzip body there are 4 other bytes"),
        (packed[:-8] + b"\1\2\3\4" + packed[-4:], "the gzip body is damaged"),
        (PLAIN, "the body is not gzip"),
    ):
        with pytest.raises(UndecodableError, match=says):
            decompress(body, "gzip", LIMIT)


def test_gzip_body_may_be_padded() -> None:
    assert decompress(gzip.compress(b"a") + gzip.compress(b"b") + b"\0" * 512, "gzip", LIMIT) == b"ab"


@EACH
def test_coding_of_a_body_without_a_header_is_recognised(coding: str, pack: Callable[[bytes], bytes]) -> None:
    assert coding_of(pack(PLAIN)) == ("" if coding == "deflate" else coding)
    assert not coding_of(b"{}")


@EACH
def test_body_above_the_limit_is_too_large(coding: str, pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        decompress(pack(PLAIN), coding, len(PLAIN) - 1)
    assert refused.value.status == 413
    assert decompress(pack(PLAIN), coding, len(PLAIN)) == PLAIN


@pytest.mark.parametrize(("coding", "pack"), [PACKERS[0], PACKERS[3], PACKERS[4]])
@given(st.lists(st.binary(max_size=90_000), min_size=1, max_size=5))
def test_concatenated_members_are_one_body(coding: str, pack: Callable[[bytes], bytes], parts: list[bytes]) -> None:
    assert decompress(b"".join(map(pack, parts)), coding, LIMIT) == b"".join(parts)


@pytest.mark.parametrize(("coding", "pack"), [PACKERS[0], PACKERS[3]])
def test_too_many_members_are_too_large(coding: str, pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        decompress(pack(b"") * 70_000, coding, LIMIT)
    assert refused.value.status == 413


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "zstd"]))
def test_random_bytes_never_crash_the_decoder(raw: bytes, coding: str) -> None:
    for body in (raw, gzip.compress(raw)[:-3] + raw, zstd_with_checksum(raw)[:6] + raw):
        with contextlib.suppress(UndecodableError):
            assert len(decompress(body, coding, LIMIT)) <= LIMIT


def test_zstd_frame_with_a_large_window_is_refused() -> None:
    params = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    packed = zstandard.ZstdCompressor(compression_params=params).stream_reader(PLAIN * 10).read()
    with pytest.raises(UndecodableError, match="window"):
        decompress(packed, "zstd", 64 << 20)


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (None, ""),
        ("", ""),
        (" Identity ", ""),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("zlib", "deflate"),
        ("zstd", "zstd"),
        ("gzip, identity", "gzip"),
        ("none", ""),
        ("UTF-8", ""),
    ],
)
def test_content_codings_are_recognised(header: str | None, coding: str) -> None:
    assert coding_named(header) == coding


@pytest.mark.parametrize("header", ["br", "gzip, gzip", "snappy", "*"])
def test_unknown_codings_are_refused(header: str) -> None:
    with pytest.raises(RequestRefusedError, match="gzip, zstd, deflate or none"):
        coding_named(header)


def test_decompression_bomb_uses_no_more_memory_than_the_limit() -> None:
    squeeze = zlib.compressobj(9, wbits=31)
    bomb = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(256)) + squeeze.flush()
    tracemalloc.start()
    try:
        with pytest.raises(RequestRefusedError) as refused:
            decompress(bomb, "gzip", 1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused.value.status == 413
    assert peak < 4 << 20
