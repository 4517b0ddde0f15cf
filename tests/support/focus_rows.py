"""Documents that FOCUS rows are made of: cost rows of every kind, and the statement of a bill."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import orjson
from tests.support.bills import DAY, cost, record, row, take

from tallystream.agents.focus.columns import Version
from tallystream.agents.focus.rows import PayingAccount, Row, estimate_rows
from tallystream.agents.focus.shared import shared_rows
from tallystream.agents.pricing import Book
from tallystream.agents.reconciliation.days import Reconciliation

BOOK = Book()
HOUR = f"{DAY}T09:00:00Z"


def priced(**counts: int) -> dict[str, Any]:
    kinds = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output")
    at_ns = 1_795_255_200 * 10**9
    pico = BOOK.price("openai", "gpt-5-codex", None, at_ns, *(counts.get(kind, 0) for kind in kinds))
    assert pico is not None
    return document("gpt-5-codex", str(Decimal(pico).scaleb(-12)), **counts)


def document(model: str, usd: str | None, **counts: Any) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(row("codex-1", HOUR, model, usd, **counts)[1])
    found["buckets"][0]["attribution"] = {"team": "payments", "repo": "=HYPERLINK()", "user": "u_1"}
    return found


def bill() -> dict[str, Any]:
    view = Reconciliation(BOOK)
    view.record(
        record(
            "/organization/costs",
            DAY,
            [
                cost("gpt-5-codex, input", "10.000001", 3_000_000),
                cost("priority | gpt-5-codex, output", "7", 3),
                cost("gpt-5-codex, output", "0E-6176", 500),
                cost("web search tool calls", "1.25"),
            ],
        )
    )
    view.row(*row("codex-1", HOUR, "gpt-5-codex", "1.25", input_uncached=1_000_000), 0)
    return take(view)["openai", "all", DAY]


def every_kind(version: Version) -> Iterator[Row]:
    """Yield rows of every kind that a file can have: all bases of cost, token kinds, products, known accounts."""
    kinds = {"input_uncached": 412_345, "cache_read": 9_120_000, "output": 18_231}
    accounts = (PayingAccount(), PayingAccount(plan=True), PayingAccount(project_id="proj_a"))
    for account in (*accounts, PayingAccount(api_key_id="key_a")):
        yield from estimate_rows(priced(**kinds), BOOK, account, version)
    yield from estimate_rows(document("in-house", None, tier="priority", output=7), BOOK, version=version)
    claude = document("claude-sonnet-4-5", "4.05", provider="anthropic", tier=None, cache_write_5m=10**6, output=20_000)
    yield from estimate_rows(claude, BOOK, version=version)
    statement = bill()
    yield from shared_rows(statement, [], BOOK, version)
    yield from shared_rows(statement | {"projects": ["proj_a"], "api_keys": []}, [], BOOK, version)
    used = [priced(input_uncached=1_000_001, output=333), document("gpt-5-codex", "0.5", tier="priority", output=2)]
    yield from shared_rows(statement, used, BOOK, version)
    for cell in statement["cells"]:
        for line in cell["tiers"]:
            line["list_amount_usd"] = line["amount_usd"]
    yield from shared_rows(statement, [], BOOK, version)
