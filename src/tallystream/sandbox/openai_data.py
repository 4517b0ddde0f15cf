"""Generated but consistent usage of an organisation: every endpoint adds up the same cells.

A cell is what one project, user, key and model did in one minute, with its costs as exact dollars. Cells of a day
follow from the seed and the day alone, so two sandboxes with one seed agree, and a test can compute on its own what an
endpoint must say. A restated day keeps its cells and gains late ones.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, Protocol

from tallystream.schemas.errors import UsageError
from tallystream.schemas.hours import HOUR_MS, hour_from_iso
from tallystream.schemas.openai import DAY_S, at, seconds

MILLION = Decimal(1_000_000)
PROJECTS = {"proj_checkout": 3, "proj_search": 2, "proj_platform": 4}
"""Projects and how many people work in each."""
TOKEN_PRICES = {
    "gpt-5-2025-08-07": ("1.25", "0.125", "10"),
    "gpt-5-codex": ("1.25", "0.125", "10"),
    "gpt-5-mini-2025-08-07": ("0.25", "0.025", "2"),
    "gpt-4o-2024-08-06": ("2.50", "1.25", "10"),
    "o4-mini-2025-04-16": ("1.10", "0.275", "4.40"),
}
"""Dollars per million tokens: input, cached input, output."""
EXTRA_MODELS = ("text-embedding-3-small", "omni-moderation-latest", "gpt-image-1", "tts-1", "whisper-1",
                "ft:gpt-4o-2024-08-06:acme:release notes:9xYz")  # fmt: skip
"""Also in /models; the fine-tuned one has a space in its id, as real ones may."""


@dataclass(frozen=True)
class UsageCell:
    """`kind` is the last part of an `/organization/usage/*` path; `costs` are dollars by line item."""

    at: int
    kind: str
    project_id: str
    user_id: str
    api_key_id: str
    model: str | None
    counts: dict[str, int]
    costs: dict[str, Decimal] = field(default_factory=dict)
    labels: dict[str, Any] = field(default_factory=dict)
    """Further fields one can group by: batch, service_tier, size, source, context_level, vector_store_id."""


class Source(Protocol):
    """The source of cells."""

    def day(self, day: int) -> tuple[UsageCell, ...]:
        """Return the cells of a UTC day (days since the epoch), in order of time."""
        ...

    def models(self) -> tuple[str, ...]:
        """Return the ids of the models the organisation can use."""
        ...


class Seeded:
    """Cells out of a seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._days: dict[int, tuple[UsageCell, ...]] = {}
        self._restated: Counter[int] = Counter()

    def day(self, day: int) -> tuple[UsageCell, ...]:
        """Return the cells of a day, late ones of its restatements included."""
        if day not in self._days:
            cells = _cells(Random(f"{self._seed}|{day}"), day, 1.0)
            for revision in range(self._restated[day]):
                cells += _cells(Random(f"{self._seed}|{day}|late {revision}"), day, 0.05)
            self._days[day] = tuple(sorted(cells, key=lambda cell: cell.at))
        return self._days[day]

    def models(self) -> tuple[str, ...]:
        """Return the ids of the models."""
        return (*TOKEN_PRICES, *EXTRA_MODELS)

    def restate(self, day: int) -> None:
        """Add late usage to a day, which then reports more."""
        self._restated[day] += 1
        self._days.pop(day, None)


class FromTruth:
    """Cells from the truth file of `tallystream simulate`, so that the catalogue matches the telemetry.

    Raises:
        UsageError: the file cannot be read, or has no rows (its fleet was still running).

    """

    def __init__(self, path: Path) -> None:
        try:
            document = json.loads(path.read_text())
            rows = document["rows"]
            cells = [_from_row(row) for row in rows if row.get("client", "codex") == "codex"]
        except OSError as exc:
            raise UsageError(f"the truth file {path} cannot be read: {exc.strerror}", "`tallystream simulate`") from exc
        except (ValueError, KeyError, TypeError) as exc:
            raise UsageError(
                f"{path} holds no rows of a finished fleet", "write one with `tallystream simulate --truth FILE`"
            ) from exc
        self._days: dict[int, list[UsageCell]] = {}
        for cell in sorted(cells, key=lambda cell: cell.at):
            self._days.setdefault(cell.at // DAY_S, []).append(cell)
        self._models = tuple(sorted({cell.model for cell in cells if cell.model}))

    def day(self, day: int) -> tuple[UsageCell, ...]:
        """Return the cells of a day."""
        return tuple(self._days.get(day, ()))

    def models(self) -> tuple[str, ...]:
        """Return the models the fleet used."""
        return self._models


def token_costs(model: str, uncached: int, cached: int, output: int) -> dict[str, Decimal]:
    """Return the dollars of each line item of a completion, exactly."""
    prices = [Decimal(price) for price in TOKEN_PRICES[model]]
    items = zip(("input", "cached input", "output"), (uncached, cached, output), prices, strict=True)
    return {f"{model}, {name}": tokens * price / MILLION for name, tokens, price in items if tokens}


def _cells(random: Random, day: int, share: float) -> list[UsageCell]:
    """Draw a day; weekends are quiet, nights too."""
    start = day * DAY_S
    quiet = 0.3 if at(start).weekday() >= 5 else 1.0
    cells = []
    for project, people in PROJECTS.items():
        for person in range(people):
            cells += _person(random, start, project, person, quiet * share)
        if share < 1:
            continue
        cells.append(_cell(start, "vector_stores", project, 0, None, {"usage_bytes": random.randint(1, 9) << 28}, {
            "file search storage": Decimal(random.randint(1, 40)) / 1000}))  # fmt: skip
        cells.append(_cell(start + 36_000, "code_interpreter_sessions", project, 0, None,
                           {"num_sessions": (n := random.randint(1, 30))},
                           {"code interpreter sessions": n * Decimal("0.03")}))  # fmt: skip
    return cells


def _person(random: Random, start: int, project: str, person: int, share: float) -> list[UsageCell]:
    cells = []
    for _ in range(max(1, round(random.randint(12, 40) * share))):
        minute = start + int(min(0.999, max(0.0, random.gauss(0.6, 0.15))) * 1440) * 60
        model = random.choices(list(TOKEN_PRICES), (6, 5, 3, 2, 2))[0]
        requests = random.randint(1, 20)
        uncached, cached = requests * random.randint(200, 4000), requests * random.choice((0, 0, 1500, 9000))
        output = requests * random.randint(50, 1200)
        counts = {
            "input_tokens": uncached + cached, "input_cached_tokens": cached, "input_uncached_tokens": uncached,
            "output_tokens": output, "num_model_requests": requests,
        }  # fmt: skip
        labels = {"batch": random.random() < 0.1, "service_tier": random.choice(("default", "default", "flex"))}
        costs = token_costs(model, uncached, cached, output)
        cells.append(_cell(minute, "completions", project, person, model, counts, costs, labels))
    for kind, its_model, draw in _OTHERS:
        if random.random() < 0.4 * share:
            minute = start + random.randrange(1440) * 60
            counts, costs, labels = draw(random)
            cells.append(_cell(minute, kind, project, person, its_model, counts, costs, labels))
    return cells


def _cell(
    minute: int, kind: str, project: str, person: int, model: str | None, counts: dict[str, int],
    costs: dict[str, Decimal], labels: dict[str, Any] | None = None,
) -> UsageCell:  # fmt: skip
    name = project.removeprefix("proj_")
    # Each person has two keys. Their rows share model and time, so a careless mapping overwrites one with the other.
    key = f"key_{name}_{person}_{'ab'[minute // 60 % 2]}"
    return UsageCell(minute, kind, project, f"user_{name}_{person}", key, model, counts, costs, labels or {})


def _embeddings(random: Random) -> tuple[dict[str, int], dict[str, Decimal], dict[str, Any]]:
    tokens = random.randint(1_000, 400_000)
    return (
        {"input_tokens": tokens, "num_model_requests": random.randint(1, 50)},
        {"text-embedding-3-small, input": tokens * Decimal("0.02") / MILLION},
        {},
    )


def _moderations(random: Random) -> tuple[dict[str, int], dict[str, Decimal], dict[str, Any]]:
    return {"input_tokens": random.randint(100, 9_000), "num_model_requests": random.randint(1, 40)}, {}, {}


def _images(random: Random) -> tuple[dict[str, int], dict[str, Decimal], dict[str, Any]]:
    images = random.randint(1, 12)
    labels = {"size": random.choice(("512x512", "1024x1024")), "source": "image.generation"}
    return (
        {"images": images, "num_model_requests": images},
        {"gpt-image-1, image": images * Decimal("0.042")},
        labels,
    )


def _speeches(random: Random) -> tuple[dict[str, int], dict[str, Decimal], dict[str, Any]]:
    characters = random.randint(50, 9_000)
    return (
        {"characters": characters, "num_model_requests": random.randint(1, 9)},
        {"tts-1, characters": characters * Decimal(15) / MILLION},
        {},
    )


def _transcriptions(random: Random) -> tuple[dict[str, int], dict[str, Decimal], dict[str, Any]]:
    length = random.randint(5, 3_600)
    return (
        {"seconds": length, "num_model_requests": random.randint(1, 9)},
        {"whisper-1, seconds": length * Decimal("0.0001")},
        {},
    )


def _file_searches(random: Random) -> tuple[dict[str, int], dict[str, Decimal], dict[str, Any]]:
    requests = random.randint(1, 30)
    return (
        {"num_requests": requests},
        {"file search tool calls": requests * Decimal("0.0025")},
        {"vector_store_id": f"vs_{random.randint(1, 3)}"},
    )


def _web_searches(random: Random) -> tuple[dict[str, int], dict[str, Decimal], dict[str, Any]]:
    requests = random.randint(1, 30)
    return (
        {"num_model_requests": requests, "num_requests": requests},
        {"web search tool calls": requests * Decimal("0.01")},
        {"context_level": random.choice(("low", "medium"))},
    )


_OTHERS = (
    ("embeddings", "text-embedding-3-small", _embeddings),
    ("moderations", "omni-moderation-latest", _moderations),
    ("images", "gpt-image-1", _images),
    ("audio_speeches", "tts-1", _speeches),
    ("audio_transcriptions", "whisper-1", _transcriptions),
    ("file_search_calls", None, _file_searches),
    ("web_search_calls", "gpt-5-mini-2025-08-07", _web_searches),
)


def _from_row(row: dict[str, Any]) -> UsageCell:
    """Return the cell of a row of the truth: one session and model in one hour."""
    digest = sha256(f"{row['session_id']}|{row['model']}|{row['service_tier']}".encode()).digest()
    cached = row["cache_read"]
    uncached = row["input_uncached"] + row["cache_write_5m"] + row["cache_write_1h"]
    attribution = row.get("attribution") or {}
    project = f"proj_{attribution.get('team') or 'default'}"
    cost = row.get("cost_usd")
    return UsageCell(
        at=hour_from_iso(row["hour"]) * (HOUR_MS // 1000) + digest[0] % 60 * 60,
        kind="completions",
        project_id=project,
        user_id=f"user_{digest[1] % 50}",
        api_key_id=f"key_{project.removeprefix('proj_')}",
        model=row["model"],
        counts={
            "input_tokens": uncached + cached,
            "input_cached_tokens": cached,
            "input_uncached_tokens": uncached,
            "output_tokens": row["output"],
            "num_model_requests": row["requests"],
        },
        costs={f"{row['model']}, tokens": Decimal(cost)} if cost else {},
        labels={"batch": False, "service_tier": row["service_tier"]},
    )


def day_of(text: str) -> int:
    """Return the day of `2026-11-21`, in days since the epoch."""
    return seconds(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)) // DAY_S
