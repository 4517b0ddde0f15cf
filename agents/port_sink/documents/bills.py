"""Documents of bills: one a provider and UTC day, from the statements of all its account scopes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import orjson

from tallystream.agents.port_sink.documents.base import Document, DocumentRows
from tallystream.agents.reconciliation import report
from tallystream.agents.reconciliation.decimals import text
from tallystream.agents.reconciliation.scopes import PLAN
from tallystream.schemas import keys

FINALITY = ("partial", "open", "provisional", "settled")
"""States, the least final first. A day has the least final state of its scopes."""


class BillDayDocuments:
    """`bill-day`: day, provider, state, reason, bill, estimate, difference and their exact texts (`bill_usd`, ...),
    causes (dollars by cause, those that are not 0), seen_tokens, billed_tokens, coverage, plan_usd, explanation.

    What a plan pays for is not part of the sums. Without a split (state `partial`), money other than estimates is null.
    """

    prefixes: tuple[bytes, ...] = (b"B|",)

    def key_for(self, row: bytes) -> bytes:
        """Return `day|provider`."""
        return b"|".join(row.split(b"|")[1:3])

    def keys(self, rows: DocumentRows) -> Iterator[bytes]:
        """Iterate over days and providers."""
        last = None
        for row, _ in rows.scan(b"B|"):
            if (key := self.key_for(row)) != last:
                last = key
                yield key

    def build(self, rows: DocumentRows, key: bytes) -> Document | None:
        """Add up the scopes. A day without any remaining data is shown with zeros instead of disappearing."""
        found = [orjson.loads(kept.value) for _, kept in rows.scan(b"B|" + key + b"|")]
        if not found:
            return None
        day, provider = keys.split(key)
        api = [one for one in found if one["scope"] != PLAN]
        plans = [one for one in found if one["scope"] == PLAN]
        sums = report.total(api)
        state = min((one["state"] for one in api or found), key=FINALITY.index)
        split = state != "partial"
        estimate = sums.estimate + sums.left_out
        record: dict[str, Any] = {
            "day": day,
            "provider": provider,
            "state": state,
            "reason": "; ".join(sorted({one["reason"] for one in api if one["state"] == "partial"})) or None,
            "as_of": sums.as_of or None,
            **_money("bill", sums.bill if split else None),
            **_money("estimate", estimate),
            **_money("difference", sums.bill - estimate if split else None),
            "causes": {name: Decimal(text(value)) for name, value in sums.causes.items() if value and split},
            "seen_tokens": sums.seen,
            "billed_tokens": sums.billed if split else None,
            "coverage": round(Decimal(sums.seen) / sums.billed, 6) if split and sums.billed > 0 else None,
            "plan_usd": text(sum((Fraction(one["estimate_usd"]) for one in plans), Fraction(0))),
            "explanation": report.explain(api) if api else None,
        }
        end = datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() + 86_400
        return Document([record], int(end) * 1000)


def _money(name: str, value: Fraction | None) -> dict[str, Any]:
    """Return an amount as a number and as exact text; both null when there is none."""
    exact = None if value is None else text(value)
    return {name: None if exact is None else Decimal(exact), f"{name}_usd": exact}
