"""Bodies to start with: those of real clients, and those that our tests generate."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator

import orjson
import zstandard
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from tests.fuzz.targets import CONNECTION, MESSAGES
from tests.support.otlp_bodies import Group, codex_noise, codex_response, encode
from tests.unit.clients.test_claude_code import response as claude_response

from tallystream.agents.session_cost import counted, event_ids
from tallystream.schemas.otlp import Encoding
from tallystream.streams.gateway.ingest import decode
from tallystream.streams.gateway.message import Message

CLAUDE = "com.anthropic.claude_code.events"


def bodies(encoding: Encoding) -> list[bytes]:
    """Return logs requests of two clients, in an encoding."""
    return [
        encode([Group([codex_response(), *codex_noise(), codex_response().having(output_token_count="7")])], encoding),
        encode([Group([claude_response(), claude_response(output_tokens=900)], {}, CLAUDE)], encoding),
        encode(
            [Group([codex_response().having(input_token_count="many")]), Group([claude_response()], {}, CLAUDE)],
            encoding,
        ),
    ]


def seeds(target: str) -> Iterator[bytes]:
    """Yield the seeds of a target."""
    binary, texts = bodies(Encoding.PROTOBUF), bodies(Encoding.JSON)
    match target:
        case "protobuf":
            yield from (*binary, ExportMetricsServiceRequest().SerializeToString())
        case "walk":
            yield from binary
        case "json":
            yield from (*texts, b'{"resourceMetrics": []}', b'{"resourceSpans": [{"scopeSpans": []}]}')
        case "json_walk":
            yield from (*texts, *(orjson.dumps(orjson.loads(one)) for one in texts))
        case "compressed":
            yield from (bytes((at,)) + pack(binary[0]) for at, pack in enumerate(PACKS))
        case "numbers":
            yield from (b'{"a": [1, 2.50, 1e3, -0.0, "1.5", null]}', texts[0])
        case "message":
            yield from (one.value.replace(b"s-1", b"s") for one in _messages(binary))
        case "state":
            yield event_ids.pack([(7, counted.UNKNOWN), (2**64 - 1, _what())])
        case "letter":
            for body in binary:
                logs = decode(body, Encoding.PROTOBUF, "logs").logs
                yield from (orjson.dumps(one.record) for one in (logs.rejected if logs else ()))
        case "whole":
            for at, pack in enumerate(PACKS):
                yield from (bytes((at,)) + pack(one) for one in binary)
                yield from (bytes((at | 4,)) + pack(one) for one in texts)


def _messages(found: list[bytes]) -> Iterator[Message]:
    for body in found:
        logs = decode(body, Encoding.PROTOBUF, "logs").logs
        if logs is not None:
            yield from MESSAGES.usage(logs.packs, CONNECTION)


def _what() -> bytes:
    return counted.pack(1, (1, 2, 3, 4, 500, 6, 7), 12_500_000, 12_000_000, (True, False))


PACKS: list[Callable[[bytes], bytes]] = [bytes, gzip.compress, zlib.compress, zstandard.ZstdCompressor().compress]
