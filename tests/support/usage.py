"""Generated usage with an independent truth: plain dicts and Decimal, without the product's folds or prices.

`fleet` writes what agents would have sent; `Truth` adds it up event by event, priced by genai-prices' `calc_price`.
"""

from __future__ import annotations

import functools
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
from genai_prices import Usage, calc_price
from genai_prices.data import providers

HOUR = timedelta(hours=1)
COUNTS = ("requests", "input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning", "tool")
MODELS = ("gpt-5-codex", "gpt-5.4", "gpt-6.1-sol", "o3", "house-model-9")
TIERS = (None, None, None, "default", "flex", "priority", "warp")
Event = dict[str, Any]


@dataclass(frozen=True)
class Session:
    """Connection, session and attribution of events."""

    connection_id: str
    session_id: str
    team: str | None
    repo: str
    agent: str | None = None

    @property
    def key(self) -> bytes:
        session = self.session_id.replace("%", "%25").replace("|", "%7C")
        return f"{self.connection_id}|{session}".encode()

    @property
    def attribution(self) -> dict[str, str]:
        named = {"repo": self.repo, "team": self.team, "agent": self.agent}
        return {name: value for name, value in named.items() if value}

    def message(self, events: list[Event]) -> bytes:
        """Return a UsageBatch."""
        head = {"connection_id": self.connection_id, "client": "codex", "provider": "openai"}
        return orjson.dumps({**head, "session_id": self.session_id, "attribution": self.attribution, "events": events})


def ns(at: datetime) -> int:
    return int(at.timestamp()) * 10**9 + at.microsecond * 1000


def hour_of(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:00:00Z")


def event(rng: random.Random, at: datetime, model: str | None = None, tier: str | None = None) -> Event:
    """Return one response; most have only what Codex sends."""
    output = rng.randrange(1, 4000)
    made = {
        "event_id": f"{rng.getrandbits(64):016x}",
        "occurred_at": ns(at),
        "model": model or rng.choice(MODELS),
        "input_uncached": rng.randrange(20_000),
        "cache_read": rng.choice((0, rng.randrange(300_000))),
        "cache_write_5m": rng.choice((0, 0, rng.randrange(9_000))),
        "cache_write_1h": 0,
        "output": output,
        "reasoning": rng.randrange(output),
        "tool": 0,
    }
    tier = tier or rng.choice(TIERS)
    if tier:
        made["service_tier"] = tier
    if rng.random() < 0.2:
        made["reported_cost_usd"] = str(Decimal(rng.randrange(10**6)) / 10**8)
    return made


@functools.cache
def knows(model: str, tier: str | None) -> bool:
    """Tell whether genai-prices has this tier of this model; otherwise it would silently use the standard one."""
    openai = next(provider for provider in providers if provider.id == "openai")
    found = openai.find_model(model)
    variants = [v.when for v in found.price_variants or ()] if found else []
    return found is not None and (tier in (None, "default") or {"service_tier": tier} in variants)


def price(happened: Event) -> Decimal | None:
    """Price a response with genai-prices; None if it does not know the model or tier."""
    model, tier = happened["model"], happened.get("service_tier")
    if not knows(model, tier):
        return None
    written = happened["cache_write_5m"] + happened["cache_write_1h"]
    usage = Usage(
        input_tokens=happened["input_uncached"] + happened["cache_read"] + written,
        cache_read_tokens=happened["cache_read"],
        cache_write_tokens=written,
        output_tokens=happened["output"],
    )
    at = datetime.fromtimestamp(happened["occurred_at"] // 10**9, UTC)
    context = {"service_tier": tier} if tier else None
    return calc_price(usage, model, provider_id="openai", genai_request_timestamp=at, price_context=context).total_price


@dataclass
class Line:
    """Sums of one (session, hour, model, tier)."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    cost: Decimal = Decimal(0)
    unpriced: int = 0
    reported: Decimal = Decimal(0)
    late: int = 0

    def add(self, happened: Event, late: bool, priced: Callable[[Event], Decimal | None] = price) -> None:
        self.counts["requests"] += 1
        for name in COUNTS[1:]:
            self.counts[name] += happened.get(name, 0)
        cost = priced(happened)
        if cost is None:
            self.unpriced += 1
        else:
            self.cost += cost
        self.reported += Decimal(happened.get("reported_cost_usd", 0))
        self.late += late


@dataclass
class Truth:
    """The expected result. Each event is known once, however often it is sent. `priced` returns its cost."""

    lines: dict[tuple[str, str, str, str | None], Line] = field(default_factory=lambda: defaultdict(Line))
    hours: dict[tuple[str, str, str | None], Line] = field(default_factory=lambda: defaultdict(Line))
    """By (hour, model, team)."""
    agents: dict[tuple[str, str, str | None, str | None], Line] = field(default_factory=lambda: defaultdict(Line))
    """By (hour, model, team, agent)."""
    events: set[str] = field(default_factory=set)
    copies: int = 0
    priced: Callable[[Event], Decimal | None] = price

    def add(self, session: Session, events: Iterable[Event], now: datetime) -> None:
        for happened in events:
            if happened["event_id"] in self.events:
                self.copies += 1
                continue
            self.events.add(happened["event_id"])
            hour = hour_of(happened["occurred_at"])
            late = now >= datetime.fromisoformat(hour) + 2 * HOUR
            tier, model = happened.get("service_tier"), happened["model"]
            self.lines[session.session_id, hour, model, tier].add(happened, late, self.priced)
            self.hours[hour, model, session.team].add(happened, late, self.priced)
            self.agents[hour, model, session.team, session.agent].add(happened, late, self.priced)


def fleet(rng: random.Random, sessions: int, now: datetime) -> Iterator[tuple[Session, list[Event]]]:
    """Yield messages: sessions that cross hours and change models, resends, late events; hour boundaries to the ns.

    What is late is certain although the messages are appended a little after `now`: near the end of an hour none lies
    in the hour before, whose grace is about to end.
    """
    this_hour = now.replace(minute=0, second=0, microsecond=0)
    hours_back = (0, 0, 0, 3, 26, 150) if now.minute >= 57 else (0, 0, 0, 1, 3, 26, 150)
    for n in range(sessions):
        team = rng.choice(("platform", "search", "a|b%c", None))
        name = f"s{n:04d}|%{rng.getrandbits(32):08x}"
        session = Session("codex-7f3a", name, team, f"acme/app{n % 3}", (None, "codex_exec", "explorer|%")[n % 3])
        past: list[Event] = []
        for _ in range(rng.randrange(1, 6)):
            events = []
            for _ in range(rng.choice((1, 1, 3, 20))):
                back = rng.choice(hours_back)
                start = this_hour - back * HOUR
                at = start + timedelta(microseconds=rng.choice((0, 1, 3_599_999_999, rng.randrange(3_600_000_000))))
                events.append(event(rng, min(at, now)))
            if past and rng.random() < 0.5:
                events += rng.sample(past, min(len(past), 5))
            past += events
            yield session, events
            if rng.random() < 0.3:
                yield session, list(events)
