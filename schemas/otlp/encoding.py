"""The two encodings of OTLP/HTTP."""

from __future__ import annotations

from enum import StrEnum


class Encoding(StrEnum):
    """Content type of a request, and of its response (OTLP specification, "OTLP/HTTP Response")."""

    PROTOBUF = "application/x-protobuf"
    JSON = "application/json"
