"""The clients we know. The record itself selects its normaliser: connections may be shared or mixed."""

from __future__ import annotations

from typing import Final

from tallystream.schemas.clients.base import Normaliser
from tallystream.schemas.clients.claude_code import CLAUDE_CODE
from tallystream.schemas.clients.codex import CODEX
from tallystream.schemas.clients.gemini_cli import GEMINI_CLI
from tallystream.schemas.otlp.records import LogRecord

NORMALISERS: Final[tuple[Normaliser, ...]] = (CODEX, CLAUDE_CODE, GEMINI_CLI)


def select(record: LogRecord) -> Normaliser | None:
    """Return the normaliser of the client that wrote the record, None when it is nobody's we know."""
    for normaliser in NORMALISERS:
        if normaliser.recognises(record):
            return normaliser
    return None
