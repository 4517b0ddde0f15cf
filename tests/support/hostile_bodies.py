"""Bodies whose decoding needs much more than their bytes, far longer than those of a fuzzer.

Each shape is a legal or nearly legal request of one kind of amplification: many tiny elements, deep nesting, much text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.support.otlp_bodies import AT_NS, Group, codex_noise, codex_response, encode
from tests.unit.clients.test_claude_code import response as claude_response

from tallystream.schemas.otlp import Encoding

MIB: Final = 1 << 20


def nested(inner: bytes, *fields: int) -> bytes:
    """Return protobuf with `inner` nested in these fields, from the innermost outwards."""
    for field in fields:
        length, size = len(inner), b""
        while length > 0x7F:
            size += bytes([length & 0x7F | 0x80])
            length >>= 7
        inner = bytes([field << 3 | 2]) + size + bytes([length]) + inner
    return inner


def around(records: bytes) -> bytes:
    """Return a JSON request around the text of its list of records."""
    return b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[' + records + b"]}]}]}"


def repeated(piece: bytes, size: int) -> bytes:
    return piece * (size // len(piece))


TOKENS = nested(nested(b"\x0a\x06tokens\x12\x02\x18\x05", 6), 2)
SMALL_USAGE = claude_response(event__timestamp=None, event__sequence=None, prompt__id=None, speed=None, user__id=None)
PROTOBUF, JSON = Encoding.PROTOBUF, Encoding.JSON
SHAPES: Final[dict[str, tuple[Encoding, Callable[[], bytes]]]] = {
    "empty scopes": (PROTOBUF, lambda: nested(repeated(b"\x12\x00", MIB), 1)),
    "many empty scopes": (PROTOBUF, lambda: nested(repeated(b"\x12\x00", 4 * MIB), 1)),
    "empty resources": (PROTOBUF, lambda: repeated(b"\x0a\x00", 4 * MIB)),
    "empty records": (PROTOBUF, lambda: nested(repeated(b"\x12\x00", 32 * MIB), 2, 1)),
    "few empty records": (PROTOBUF, lambda: nested(repeated(b"\x12\x00", 250_000), 2, 1)),
    "small records of tokens": (PROTOBUF, lambda: nested(repeated(TOKENS, MIB), 2, 1)),
    "a record of attributes": (
        PROTOBUF,
        lambda: nested(repeated(b"\x32\x04\x0a\x02xy", 3 * MIB) + TOKENS[2:], 2, 2, 1),
    ),
    "a resource of attributes": (
        PROTOBUF,
        lambda: nested(nested(repeated(b"\x0a\x06\x0a\x02xy\x12\x00", 8 * MIB), 1) + nested(TOKENS, 2), 1),
    ),
    "groups in groups": (PROTOBUF, lambda: repeated(b"\x0b", 16 * MIB)),
    "unknown fields": (PROTOBUF, lambda: nested(repeated(b"\x78\x01", 16 * MIB), 1)),
    "one long text": (PROTOBUF, lambda: nested(TOKENS[2:] + nested(b"x" * (32 * MIB), 1, 5), 2, 2, 1)),
    "empty objects": (JSON, lambda: around(repeated(b"{},", 32 * MIB) + b"{}")),
    "few empty objects": (JSON, lambda: around(repeated(b"{},", 2 * MIB) + b"{}")),
    "empty resources in JSON": (JSON, lambda: b'{"resourceLogs":[' + repeated(b"{},", 16 * MIB) + b"{}]}"),
    "lists in lists": (JSON, lambda: around(b"[" * (16 * MIB))),
    "objects in objects": (JSON, lambda: around(b'{"a":' * (3 * MIB))),
    "numbers": (JSON, lambda: around(b'{"tokens":[' + repeated(b"1.5,", 16 * MIB) + b"1]}")),
    "an object of names": (
        JSON,
        lambda: around(b'{"tokens":1,"' + b'":1,"'.join(b"%d" % n for n in range(900_000)) + b'":1}'),
    ),
    "small records of tokens in JSON": (
        JSON,
        lambda: around(b",".join([b'{"attributes":[{"key":"tokens","value":{"intValue":5}}]}'] * 60_000)),
    ),
    "broken records in JSON": (JSON, lambda: around(repeated(b"5,", 8 * MIB) + b"5")),
    "broken JSON with tokens": (JSON, lambda: around(repeated(b'{"attributes":nan,"tokens":{}},', 4 * MIB) + b"{}")),
    "one long text in JSON": (JSON, lambda: around(b'{"tokens":"' + b"x" * (32 * MIB) + b'"}')),
    "an astral character and much text": (
        JSON,
        lambda: around(b'{"tokens":"\xf0\x9f\x98\x80' + b"x" * (3 * MIB) + b'","b":nan}'),
    ),
    "an object of attributes": (
        JSON,
        lambda: around(b'{"attributes":{"tokens":1,"' + b'":1,"'.join(b"%d" % n for n in range(400_000)) + b'":1}}'),
    ),
    "a body of attributes in JSON": (
        JSON,
        lambda: around(
            b'{"body":{"kvlistValue":{"values":{"tokens":1,"'
            + b'":1,"'.join(b"%d" % n for n in range(400_000))
            + b'":1}}}}'
        ),
    ),
    "bodies of attributes": (
        PROTOBUF,
        lambda: nested(repeated(nested(b"\x0a\x06tokens\x12\x02\x18\x05", 1, 6, 5, 2), 2 * MIB), 1, 1),
    ),
    "requests in a row": (JSON, lambda: repeated(b"{}\n", 16 * MIB)),
    "requests with usage in a row": (
        JSON,
        lambda: around(b'{"attributes":[{"key":"tokens","value":{"intValue":5}}]}') * 30_000,
    ),
    "UTF-16": (JSON, lambda: around(b'{"tokens":"' + "\u20ac".encode() * (8 * MIB) + b'"}').decode().encode("utf-16")),
    "escapes": (JSON, lambda: around(b'{"tokens":"' + b"\\u00e9" * (5 * MIB) + b'"}')),
    "what Codex sends": (
        PROTOBUF,
        lambda: encode(
            [Group([r for n in range(1500) for r in (*codex_noise(), codex_response(f"s-{n % 50}", at_ns=AT_NS + n))])],
            PROTOBUF,
        ),
    ),
    "what Codex sends, in JSON": (
        JSON,
        lambda: encode(
            [Group([r for n in range(1500) for r in (*codex_noise(), codex_response(f"s-{n % 50}", at_ns=AT_NS + n))])],
            JSON,
        ),
    ),
    "nothing but usage": (
        PROTOBUF,
        lambda: encode([Group([SMALL_USAGE.having(request_id=f"{n}") for n in range(20_000)], {}, "")], PROTOBUF),
    ),
    "nothing but usage, a session each": (
        PROTOBUF,
        lambda: encode(
            [Group([SMALL_USAGE.having(request_id="1", session__id=f"{n}") for n in range(16_000)], {}, "")], PROTOBUF
        ),
    ),
}
