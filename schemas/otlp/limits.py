"""Limits on how many elements a body may contain.

A limit on bytes alone does not bound memory: an empty record has two bytes on the wire and hundreds in memory. So
elements are counted while they are decoded, and a body with more than any client sends is refused as too large.
docs/threat-model.md lists the limits and the memory measured for each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from tallystream.schemas.errors import TooManyElementsError


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one body. Above `frames` or `records` the body is refused; above the others, a record is set aside."""

    frames: int = 32_768
    """Resources and scopes together."""
    records: int = 262_144
    """Log records, metrics or spans: those of 64 MiB at 256 bytes each."""
    usage_records: int = 65_536
    """Records that may carry token counts."""
    sessions: int = 16_384
    """Sessions with their attributions: each needs its own message to Kafka."""
    attributes: int = 4_096
    """Of one resource, scope or record. OpenTelemetry's SDKs stop at 128."""
    record_bytes: int = 4 << 20
    """Of one record with token counts. Longer ones, which no known client sends, are not decoded."""

    def share(self, part: int) -> Limits:
        """Return limits that many times smaller; the limits on a single record stay the same."""
        return Limits(self.frames // part, self.records // part, self.usage_records // part, self.sessions // part)

    def light(self) -> Limits:
        """Return the same limits with `LIGHT_RECORDS`."""
        return replace(self, usage_records=min(LIGHT_RECORDS, self.usage_records))


LIMITS: Final = Limits()
LIGHT_RECORDS: Final = 300
"""Maximum of `usage_records` of a body that is decoded while other requests wait: so many take at most 10 ms. Clients'
records are too long for a small body to have more."""


class DecodingBudget:
    """Counts the elements of a body and checks them against the limits."""

    __slots__ = ("frames", "limits", "records", "usage_records")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.frames = 0
        self.records = 0
        self.usage_records = 0

    def frame(self) -> None:
        """Count a resource or a scope.

        Raises:
            TooManyElementsError: there are more than the limit allows.

        """
        self.frames += 1
        if self.frames > self.limits.frames:
            raise TooManyElementsError(f"the body has more than {self.limits.frames} resources and scopes")

    def record(self, number: int = 1) -> None:
        """Count records.

        Raises:
            TooManyElementsError: there are more than the limit allows.

        """
        self.records += number
        if self.records > self.limits.records:
            raise TooManyElementsError(f"the body has more than {self.limits.records} records")

    def usage_record(self) -> None:
        """Count a record that may carry token counts.

        Raises:
            TooManyElementsError: there are more than the limit allows.

        """
        self.usage_records += 1
        if self.usage_records > self.limits.usage_records:
            raise TooManyElementsError(f"the body has more than {self.limits.usage_records} records with token counts")
