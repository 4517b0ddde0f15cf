"""Infers the shape of undocumented JSON: its fields, their types and how often they occur. Values are not kept.

`observe` the items of a sample one after the other; their order does not change the resulting shape.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

EPOCH_FROM, EPOCH_TO = 1_000_000_000, 4_102_444_800
"""Whole numbers in this range (2001 to 2100) may be seconds since the epoch, if the field's name suggests it."""
TIME_NAME = re.compile(r"(^|_)(time|timestamp|created|updated|expires|date|at)(_at)?$", re.IGNORECASE)
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:?\d\d)?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_URL = re.compile(r"https?://[^\s]+")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


@dataclass
class Shape:
    """The values seen at one place. `kinds` counts null, boolean, integer, number, string, array, object."""

    kinds: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    """Counts of formats: date, date-time, url, email or plain for strings; epoch or plain for integers."""
    fields: dict[str, Shape] = field(default_factory=dict)
    items: Shape | None = None

    @property
    def seen(self) -> int:
        """How many values were seen."""
        return self.kinds.total()

    @property
    def kind(self) -> str | None:
        """The kind of the values, ignoring null; None if there are several. Mixed integers and numbers are numbers."""
        kinds = set(self.kinds) - {"null"}
        if kinds == {"integer", "number"}:
            return "number"
        return kinds.pop() if len(kinds) == 1 else None

    @property
    def format(self) -> str | None:
        """The format that all its strings or integers share, or None."""
        formats = set(self.formats)
        return formats.pop() if len(formats) == 1 and formats != {"plain"} else None

    def always(self, name: str) -> bool:
        """Whether the field is present and not null in every object seen here."""
        found = self.fields.get(name)
        return found is not None and found.seen == self.kinds["object"] and not found.kinds["null"]

    def observe(self, value: object, name: str = "") -> Shape:
        """Add a value (exact JSON) of the field `name`; return the shape itself."""
        match value:
            case None:
                self.kinds["null"] += 1
            case bool():
                self.kinds["boolean"] += 1
            case int():
                self.kinds["integer"] += 1
                epoch = EPOCH_FROM <= value < EPOCH_TO and TIME_NAME.search(name)
                self.formats["epoch" if epoch else "plain"] += 1
            case Decimal():
                self.kinds["number"] += 1
            case str():
                self.kinds["string"] += 1
                self.formats[_format(value)] += 1
            case list():
                self.kinds["array"] += 1
                self.items = self.items or Shape()
                for item in value:
                    self.items.observe(item, name)
            case dict():
                self.kinds["object"] += 1
                for key, item in value.items():
                    self.fields.setdefault(key, Shape()).observe(item, key)
            case _:
                raise TypeError(f"{type(value).__name__} cannot be written as exact JSON")
        return self


def describe(shape: Shape) -> str:
    """Return the types as text: `string (date-time)`, `integer or null`."""
    names = []
    for kind in sorted(shape.kinds, key=lambda kind: (kind == "null", kind)):
        suffix = f" ({shape.format})" if kind in ("string", "integer") and shape.format else ""
        names.append(kind + suffix)
    return " or ".join(names) or "nothing"


def _format(text: str) -> str:
    if _DATE.fullmatch(text) or _DATE_TIME.fullmatch(text):
        try:
            datetime.fromisoformat(text)
        except ValueError:
            return "plain"
        return "date" if len(text) == len("2026-11-21") else "date-time"
    if _URL.fullmatch(text):
        return "url"
    return "email" if _EMAIL.fullmatch(text) else "plain"
