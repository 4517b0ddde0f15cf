"""The known clients. The record itself selects its normaliser, because connections may be shared by several clients.

Pipelines between a client and us drop scopes, rename services and move an event's name from an attribute to a field. So
any of its marks identifies a client, and any of its names identifies its event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from tallystream.schemas.clients.base import Normaliser
from tallystream.schemas.clients.claude_code import CLAUDE_CODE
from tallystream.schemas.clients.cline import CLINE
from tallystream.schemas.clients.codex import CODEX
from tallystream.schemas.clients.gemini_cli import GEMINI_CLI
from tallystream.schemas.clients.qwen_code import QWEN_CODE
from tallystream.schemas.otlp.records import LogRecord

NORMALISERS: Final[tuple[Normaliser, ...]] = (CODEX, CLAUDE_CODE, QWEN_CODE, GEMINI_CLI, CLINE)

ALL_FIELDS: Final = tuple(
    dict.fromkeys(
        (
            *(name for normaliser in NORMALISERS for name in normaliser.fields),
            "gen_ai.request.model",
            "gen_ai.response.model",
            "gen_ai.provider.name",
        )
    )
)
"""Attributes that a dead letter may keep of a record of an unknown client."""


def select(record: LogRecord) -> Normaliser | None:
    """Return the normaliser of the client that wrote the record, None when the client is unknown."""
    for is_mark in _MARKS:
        for normaliser in NORMALISERS:
            if is_mark(record, normaliser):
                return normaliser
    present = _spelled_alike(record.attributes.names())
    return next((normaliser for normaliser in NORMALISERS if _SIGNATURES[normaliser.client] <= present), None)


def costs(record: LogRecord, normaliser: Normaliser) -> bool:
    """Whether the record is its client's one event that costs.

    Another event name with the client's prefix decides against it, whatever else the record holds: a renamed event must
    be noticed, not guessed.
    """
    if normaliser.event in record.names:
        return True
    names = _short(record.names, normaliser)
    if names:
        return short(normaliser.event, normaliser) in names or _respelled(record, normaliser)
    return _SIGNATURES[normaliser.client] <= _spelled_alike(record.attributes.names())


def _respelled(record: LogRecord, normaliser: Normaliser) -> bool:
    """Whether the record names the event with another separator: `claude-code.api_request`."""
    event, full = _EVENTS[normaliser.client]
    for name in record.names:
        # most names are those of other events, and their length shows it
        if (len(name) == len(event) or len(name) == len(full)) and _spelled(name) in (event, full):
            return True
    return False


REPEATS_SPANS: Final = frozenset(
    {
        "gen_ai.client.inference.operation.details",
        "gen_ai.choice",
        "copilot_chat.agent.turn",
        "copilot_chat.session.end",
    }
)
"""Events of programs whose spans cost: they repeat the usage of the spans (docs/agents.md)."""


def repeats(record: LogRecord, normaliser: Normaliser | None) -> bool:
    """Whether the record repeats the usage of the event that costs, or is not usage at all."""
    if normaliser is None:
        return not REPEATS_SPANS.isdisjoint(record.names)
    return not normaliser.repeats.isdisjoint(_short(record.names, normaliser))


def short(name: str, normaliser: Normaliser) -> str:
    """Return an event's name without the client's prefix, which some clients write and some pipelines add."""
    return name.removeprefix(normaliser.prefix)


def _short(names: tuple[str, ...], normaliser: Normaliser) -> list[str]:
    return [short(name, normaliser) for name in names]


def _spelled(name: str) -> str:
    """Return a name without the separators that pipelines change because some stores do not allow them."""
    return name.replace("-", "_").replace(".", "_")


def _spelled_alike(names: Iterable[str]) -> frozenset[str]:
    return frozenset([_spelled(name) for name in names])


_SIGNATURES: Final = {normaliser.client: _spelled_alike(normaliser.signature) for normaliser in NORMALISERS}


_EVENTS: Final = {
    normaliser.client: (
        _spelled(short(normaliser.event, normaliser)),
        _spelled(normaliser.prefix + short(normaliser.event, normaliser)),
    )
    for normaliser in NORMALISERS
}
"""The event that costs, without and with the client's prefix, in the spelling of `_spelled`."""


def _named(record: LogRecord, normaliser: Normaliser) -> bool:
    prefix = normaliser.prefix
    for name in record.names:
        if name.startswith(prefix):
            return True
    for name in record.hints:  # noqa: SIM110 - a generator costs more than the search
        if name.startswith(prefix):
            return True
    return False


def _scoped(record: LogRecord, normaliser: Normaliser) -> bool:
    return record.scope.startswith(normaliser.scopes)


def _served(record: LogRecord, normaliser: Normaliser) -> bool:
    service = record.resource.get("service.name")
    return isinstance(service, str) and service.startswith(normaliser.services)


_MARKS: Final[tuple[Callable[[LogRecord, Normaliser], bool], ...]] = (_named, _scoped, _served)
"""Strongest first."""
