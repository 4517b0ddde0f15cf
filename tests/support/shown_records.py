"""All that is known about a decoded log record, in a form that can be compared."""

from __future__ import annotations

from typing import Any

from tallystream.schemas.otlp import BrokenRecord, LogRecord


def shown(found: LogRecord | BrokenRecord | None) -> Any:
    """Return a record's fields; values as text, because NaN is not equal to itself."""
    if not isinstance(found, LogRecord):
        return None if found is None else (found.index, found.why, shown(found.found))
    values = {name: repr(found.attributes.get(name)) for name in found.attributes.names()}
    fields = (found.index, found.time_ns, found.observed_ns, found.trace_id, found.event_name, found.scope)
    resource = {name: repr(value) for name, value in found.resource.items()}
    return *fields, resource, values, found.names, found.hints
