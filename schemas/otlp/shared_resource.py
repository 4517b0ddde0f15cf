"""Resources that many bodies repeat: a process sends the same one with each of its requests."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from google.protobuf.message import DecodeError

from tallystream.schemas.otlp import wire
from tallystream.schemas.otlp.attributes import message_values
from tallystream.schemas.otlp.limits import Limits
from tallystream.schemas.otlp.protobuf_messages import ResourceMessage
from tallystream.schemas.otlp.protobuf_records import attributes
from tallystream.schemas.otlp.records import Value

REMEMBERED: Final = 512
LONGEST_REMEMBERED: Final = 2_048
"""Bytes of a resource. Together they take a few megabytes."""


class SharedResource(dict[str, Value]):
    """The attributes of a resource, never changed, with what was derived from them."""

    __slots__ = ("attribution",)

    def __init__(self, values: dict[str, Value]) -> None:
        super().__init__(values)
        self.attribution: dict[str, str] | None = None
        """Set by the first one who needs it."""


def shared_resource(raw: bytes, limits: Limits) -> SharedResource:
    """Return the attributes of a resource in protobuf; the same object for the same bytes, if they are few."""
    try:
        return _remembered(raw) if len(raw) <= LONGEST_REMEMBERED else _decoded(raw)
    except DecodeError:
        return SharedResource(attributes(raw, wire.Field(1, wire.LEN, 0, len(raw)), 1, limits))


def _decoded(raw: bytes) -> SharedResource:
    return SharedResource(message_values(ResourceMessage.FromString(raw).attributes))


_remembered = lru_cache(maxsize=REMEMBERED)(_decoded)
