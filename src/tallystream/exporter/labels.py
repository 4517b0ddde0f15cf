"""Splits a cost row into its shares of the counters. Pure, except for the set of labels it has seen.

Labels come from clients and operators, so their number is bounded: further ones are counted as `other`. The first ones
to appear are kept, and are stored with the counters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, get_args

from tallystream.schemas.money import to_pico
from tallystream.schemas.usage import DISJOINT_COUNTS

COUNTS = (
    "requests", *DISJOINT_COUNTS, "reasoning", "unpriced_requests",
)  # fmt: skip
FIELDS = (*COUNTS, "cost_pico")
"""The fields of a counter's sums, in this order; money is a whole number of pico-dollars."""
ZERO = (0,) * len(FIELDS)
KINDS = DISJOINT_COUNTS
"""Values of the label `kind`. The counts are disjoint, so that they can be added up."""
Sums = tuple[int, ...]

OTHER = "other"
NO_NAME = "none"
"""Label of usage whose attribution does not name a team, an agent or how it is paid."""
Dimension = Literal["team", "agent", "billing"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
"""Parts of the attribution that have counters of their own."""
MAX_CONNECTIONS = 500
MAX_MODELS = 100
MAX_TEAMS = 100
MAX_AGENTS = 100
MAX_SERIES = 2_000
"""Maximum number of (connection, client, model); a further model of any connection becomes `other`."""
MAX_LENGTH = 80
"""Maximum number of characters of a label's value."""


class Label(NamedTuple):
    """Identifies a counter: (usage, connection, client, model) or (a dimension, name, "", "")."""

    kind: Literal["usage"] | Dimension
    first: str
    client: str = ""
    model: str = ""


class Labels:
    """Decides the label of each bucket of a row. `known` are the labels already kept."""

    def __init__(self, known: Iterable[Label] = ()) -> None:
        self._connections: set[str] = set()
        self._models: set[str] = set()
        self._names: dict[Dimension, set[str]] = {dimension: set() for dimension in DIMENSIONS}
        self._usage: set[tuple[str, str, str]] = set()
        for label in known:
            self._keep(label)

    def usage(self, connection: str, client: str, model: str) -> Label:
        """Return the label for a connection's usage of a model."""
        connection = _bounded(connection, self._connections, MAX_CONNECTIONS)
        model = _bounded(model, self._models, MAX_MODELS)
        if (connection, client, model) not in self._usage and len(self._usage) >= MAX_SERIES:
            model = OTHER
        return self._keep(Label("usage", connection, client, model))

    def of(self, dimension: Dimension, name: str | None) -> Label:
        """Return the label of a team, an agent or a way of paying."""
        most = MAX_AGENTS if dimension == "agent" else MAX_TEAMS
        return self._keep(Label(dimension, _bounded(name, self._names[dimension], most) if name else NO_NAME))

    def _keep(self, label: Label) -> Label:
        if label.kind != "usage":
            self._names[label.kind].add(label.first)
        else:
            self._connections.add(label.first)
            self._models.add(label.model)
            self._usage.add((label.first, label.client, label.model))
        return label


def _bounded(value: str, known: set[str], most: int) -> str:
    clean = "".join(char if char.isprintable() else "�" for char in value[:MAX_LENGTH])
    return clean if clean in known or len(known) < most else OTHER


def parts(row: Mapping[str, Any], labels: Labels) -> dict[Label, Sums]:
    """Return the sums of a SessionHourCost by label. Each bucket counts once for its model and once for each dimension.

    Raises:
        KeyError, TypeError, ValueError, ArithmeticError, AttributeError: the value is not such a row.

    """
    found: dict[Label, Sums] = {}
    for bucket in row["buckets"]:
        cost = bucket["cost_usd"]
        counts = tuple(bucket[name] for name in COUNTS)
        if not all(type(count) is int and count >= 0 for count in counts):
            raise TypeError("counts are whole numbers")
        sums = (*counts, 0 if cost is None else to_pico(cost))
        named = bucket.get("attribution") or {}
        for label in (
            labels.usage(row["connection_id"], row["client"], bucket["model"]),
            *(labels.of(dimension, named.get(dimension)) for dimension in DIMENSIONS),
        ):
            found[label] = add(found[label], sums) if label in found else sums
    return found


def add(a: Sums, b: Sums) -> Sums:
    """Add, field by field."""
    return tuple(x + y for x, y in zip(a, b, strict=True))


def change(old: Mapping[Label, Sums], new: Mapping[Label, Sums]) -> dict[Label, Sums]:
    """Return the change of each label's sums when a row's parts `old` are replaced by `new`."""
    changes = {}
    for label in old.keys() | new.keys():
        before, after = old.get(label, ZERO), new.get(label, ZERO)
        if before != after:
            changes[label] = tuple(y - x for x, y in zip(before, after, strict=True))
    return changes
