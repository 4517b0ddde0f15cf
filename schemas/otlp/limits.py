"""How much a body may make of its bytes.

A limit on bytes alone bounds little: two bytes are an empty record, and a record in memory is hundreds. So what is
decoded is counted while it is decoded, and a body that holds more than any client sends is refused as too large.
docs/threat-model.md shows the limits with the memory they were measured to allow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tallystream.schemas.errors import TooManyElementsError


@dataclass(frozen=True, slots=True)
class Limits:
    """What one body may hold; beyond `frames` or `records` it is refused, beyond the others a record is set aside."""

    frames: int = 32_768
    """Resources and scopes together."""
    records: int = 262_144
    """Log records, metrics or spans: those of 64 MiB at 256 bytes each."""
    usage_records: int = 65_536
    """Records that may carry token counts."""
    sessions: int = 16_384
    """Sessions, each with its attribution: what every message to Kafka is about."""
    attributes: int = 4_096
    """Of one resource, scope or record. OpenTelemetry's SDKs stop at 128."""
    record_bytes: int = 4 << 20
    """Of one record with token counts. Longer ones, which nothing known to us sends, are not decoded."""

    def share(self, part: int) -> Limits:
        """Return limits that many times smaller, which what one record may be is not."""
        return Limits(self.frames // part, self.records // part, self.usage_records // part, self.sessions // part)


LIMITS: Final = Limits()


class DecodingBudget:
    """What has been seen of a body, held against its limits."""

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
