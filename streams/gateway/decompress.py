"""Decompresses a body in slices, with limits on the output and on the number of parts, and in linear time.

aiohttp's own decompression is off: it answers a broken gzip with 500 and a truncated one with 200, and does not limit
the members of a gzip stream.
"""

from __future__ import annotations

import io
import zlib
from typing import Final

import zstandard

from tallystream.streams.gateway.errors import RequestRefusedError, UndecodableError

CODINGS: Final = ("gzip", "zstd", "deflate")
"""Supported Content-Encodings, besides none. `x-gzip` and `zlib` are old names of two of them."""
_NAMES: Final = {"x-gzip": "gzip", "zlib": "deflate"}
_NO_CODINGS: Final = ("", "identity", "none", "utf-8", "utf8")
"""`none` and the name of a character set are not codings, but are sent for bodies without one."""
_GZIP: Final = b"\x1f\x8b\x08"
_MAGIC: Final = {_GZIP: "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
"""How a compressed body begins; no OTLP request in protobuf or JSON begins like this."""
_BEGINNINGS: Final = tuple(_MAGIC)
_CODING_OF_BYTE: Final = {begin[0]: coding for begin, coding in _MAGIC.items()}
_WBITS: Final = {"gzip": 31, "deflate": 15}
_RAW_DEFLATE: Final = -15
_SLICE: Final = 64 << 10
"""Compressed bytes that are processed at once, which bounds how often the bytes after a member's end are copied."""
_PIECE: Final = 1 << 20
"""Decompressed bytes that are produced at once."""
_MOST_PARTS: Final = 4_096
"""Maximum number of gzip members or zstd frames: clients send one, and 1,024 blocks of 64 KiB are 64 MiB."""
_MOST_BLOCKS: Final = 65_536
_ZSTD_WINDOW: Final = 8 << 20
"""Maximum window size of a zstd frame: RFC 9659's limit for HTTP."""
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"


def coding_named(header: str | None) -> str:
    """Return the coding a Content-Encoding header names, "" for identity.

    Raises:
        RequestRefusedError: 400, it is not supported.

    """
    if header is None:
        return ""
    named = [coding for part in header.split(",") if (coding := part.strip().lower()) not in _NO_CODINGS]
    if not named:
        return ""
    coding = _NAMES.get(named[0], named[0])
    if coding not in CODINGS:
        raise RequestRefusedError(400, f"unknown Content-Encoding: use {', '.join(CODINGS)} or none")
    if len(named) > 1:
        raise RequestRefusedError(400, f"more than one Content-Encoding: use {', '.join(CODINGS)} or none")
    return coding


def coding_of(raw: bytes) -> str:
    """Return the coding of a body that came without Content-Encoding, which some proxies drop; "" for none."""
    return _CODING_OF_BYTE.get(raw[0], "") if raw and raw.startswith(_BEGINNINGS) else ""


def too_large(limit: int) -> RequestRefusedError:
    """Return the 413."""
    return RequestRefusedError(413, f"the body is larger than {limit} bytes")


def decompress(raw: bytes, coding: str, limit: int) -> bytes:
    """Return the body decompressed; never produces more than one piece beyond `limit` bytes, however many parts there
    are.

    Raises:
        UndecodableError: garbage, truncated, or with something after its end.
        RequestRefusedError: 413, more than `limit` bytes come out, or too many parts.

    """
    if not coding:
        return raw
    out = io.BytesIO()
    if coding == "zstd":
        _zstd(raw, out, limit)
    elif coding == "deflate":
        _deflate(raw, out, limit)
    else:
        _gzip(raw, out, limit)
    return out.getvalue()


def _gzip(raw: bytes, out: io.BytesIO, limit: int) -> None:
    position = parts = 0
    while position < len(raw) or not parts:
        parts += 1
        if parts > _MOST_PARTS:
            raise RequestRefusedError(413, f"the gzip body has more than {_MOST_PARTS} members")
        position = _member(raw, position, "gzip", _WBITS["gzip"], out, limit)
        if not raw.startswith(_GZIP, position):
            # some senders pad the body to whole blocks
            if raw[position:].strip(b"\0"):
                raise UndecodableError(f"after the end of the gzip body there are {len(raw) - position} other bytes")
            return


def _deflate(raw: bytes, out: io.BytesIO, limit: int) -> None:
    try:
        end = _member(raw, 0, "deflate", _WBITS["deflate"], out, limit)
    except UndecodableError:
        # Some clients send raw deflate under this name, as browsers once did.
        out.seek(0)
        out.truncate()
        end = _member(raw, 0, "deflate", _RAW_DEFLATE, out, limit)
    if end < len(raw):
        raise UndecodableError("the deflate body is followed by other bytes")


def _member(raw: bytes, position: int, coding: str, wbits: int, out: io.BytesIO, limit: int) -> int:
    """Decompress one member; return where the next one begins."""
    member = zlib.decompressobj(wbits)
    begun = coding == "gzip" and raw.startswith(_GZIP, position)
    while True:
        # the unused input is read again from `position`
        fed = raw[position : position + _SLICE]
        if not fed:
            raise UndecodableError(f"the {coding} body is truncated")
        try:
            piece = member.decompress(fed, min(_PIECE, limit - out.tell() + 1))
        except zlib.error:
            what = f"the {coding} body is damaged" if out.tell() or begun else f"the body is not {coding}"
            raise UndecodableError(what) from None
        _put(piece, out, limit)
        if member.eof:
            return position + len(fed) - len(member.unused_data)
        position += len(fed) - len(member.unconsumed_tail)


def _put(piece: bytes, out: io.BytesIO, limit: int) -> None:
    if out.tell() + len(piece) > limit:
        raise too_large(limit)
    out.write(piece)


def _zstd(raw: bytes, out: io.BytesIO, limit: int) -> None:
    _check_zstd(raw)
    try:
        with zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).stream_reader(
            raw, read_across_frames=True
        ) as read:
            while piece := read.read(_PIECE):
                _put(piece, out, limit)
    except zstandard.ZstdError:
        raise UndecodableError("the body is not zstd, or asks for a window of more than 8 MiB") from None


def _check_zstd(raw: bytes) -> None:
    """Walk frames and blocks (RFC 8878, 3.1): the library accepts a truncated body as complete.

    Raises:
        UndecodableError: it is not a sequence of complete frames.
        RequestRefusedError: 413, it has too many parts.

    """
    position = parts = 0
    while position < len(raw) or not parts:
        parts += 1
        magic = raw[position : position + 4]
        if len(magic) == 4 and magic[1:] == b"\x2a\x4d\x18" and magic[0] & 0xF0 == 0x50:
            position += 8 + int.from_bytes(raw[position + 4 : position + 8], "little")
        elif magic == _ZSTD_MAGIC:
            position, blocks = _zstd_frame(raw, position)
            parts += blocks
        else:
            raise UndecodableError("the body is not zstd")
        if position > len(raw):
            raise UndecodableError("the zstd body is truncated")
        if parts > _MOST_BLOCKS:
            raise RequestRefusedError(413, f"the zstd body has more than {_MOST_BLOCKS} frames and blocks")


def _zstd_frame(raw: bytes, position: int) -> tuple[int, int]:
    """Return where a frame ends (beyond the body when it is truncated), and how many blocks it has."""
    if position + 5 > len(raw):
        return len(raw) + 1, 0
    descriptor = raw[position + 4]
    checksum = 4 if descriptor & 4 else 0
    position += _header(raw, position)
    blocks = 0
    while position + 3 <= len(raw):
        block = int.from_bytes(raw[position : position + 3], "little")
        blocks += 1
        # a run-length block has one byte, whatever its decompressed length
        position += 3 + (1 if (block >> 1) & 3 == 1 else block >> 3)
        if block & 1:
            return position + checksum, blocks
        if blocks > _MOST_BLOCKS:
            break
    return (position, blocks) if blocks > _MOST_BLOCKS else (len(raw) + 1, blocks)


def _header(raw: bytes, position: int) -> int:
    """Return the length of a frame's header (RFC 8878, 3.1.1.1)."""
    descriptor = raw[position + 4]
    single = bool(descriptor & 0x20)
    dictionary = (0, 1, 2, 4)[descriptor & 3]
    size = (int(single), 2, 4, 8)[descriptor >> 6]
    return 5 + (not single) + dictionary + size
