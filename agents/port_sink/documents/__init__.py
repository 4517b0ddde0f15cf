"""Documents: the input of mappings, by kind. docs/port.md describes the kinds."""

from __future__ import annotations

from collections.abc import Container, Iterable

from tallystream.agents.port_sink.documents.base import Document, DocumentKind, DocumentRows
from tallystream.agents.port_sink.documents.bills import BillDayDocuments
from tallystream.agents.port_sink.documents.feeds import feeds
from tallystream.agents.port_sink.documents.models import KIND as MODELS
from tallystream.agents.port_sink.documents.models import OpenAIModelDocuments
from tallystream.agents.port_sink.documents.openai import Daily, EndpointDocuments, ModelDaily
from tallystream.agents.port_sink.documents.telemetry import (
    ConnectionDocuments,
    CostHourDocuments,
    ModelDocuments,
    SessionDocuments,
    SessionHourDocuments,
)
from tallystream.schemas.errors import UsageError

__all__ = ["MODELS", "OURS", "Document", "DocumentKind", "DocumentRows", "feeds", "kinds"]

OURS: dict[str, type[DocumentKind]] = {
    "connection": ConnectionDocuments,
    "model": ModelDocuments,
    MODELS: OpenAIModelDocuments,
    "session": SessionDocuments,
    "session-hour": SessionHourDocuments,
    "cost-hour": CostHourDocuments,
    "openai-daily": Daily,
    "openai-model-daily": ModelDaily,
    "bill-day": BillDayDocuments,
}
"""Kinds that are tables of our own; every kind that begins with a slash is an endpoint of OpenAI's."""


def kinds(
    names: Iterable[str],
    buckets: Container[str] = (),
    endpoints: Container[str] = (),
    models: Iterable[str] = (),
) -> dict[str, DocumentKind]:
    """Return kinds by name; the records of those in `buckets` are whole buckets, those in `endpoints` are endpoints
    whatever their names, and `models` are the blueprints made of `openai-model`.

    Raises:
        UsageError: a name is not a kind.

    """
    found: dict[str, DocumentKind] = {}
    for name in names:
        if name == MODELS:
            found[name] = OpenAIModelDocuments(models)
        elif name in OURS:
            found[name] = OURS[name]()
        elif name.startswith("/") or name in endpoints:
            found[name] = EndpointDocuments(name, buckets=name in buckets)
        else:
            raise UsageError(
                f"unknown kind {name!r}", f"kinds: {', '.join(OURS)}, and OpenAI's endpoints, such as /models"
            )
    return found
