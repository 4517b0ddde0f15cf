"""The time to price one request, compared with `genai_prices.calc_price`. Run: `python benchmarks/pricing.py`.

Quote only the ratio of a run, because both sides ran on the same machine.
"""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime

from genai_prices import Usage, calc_price

from tallystream.agents.pricing import Book

MODELS = ("gpt-5-codex", "gpt-5.4", "gpt-6.1-sol", "o3", "codex-mini-latest")
AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
AT_NS = int(AT.timestamp()) * 10**9
Request = tuple[str, int, int, int]


def requests(number: int) -> list[Request]:
    """Return generated requests, the same in every run."""
    rng = random.Random(7)
    return [
        (rng.choice(MODELS), rng.randrange(30_000), rng.randrange(300_000), rng.randrange(5_000)) for _ in range(number)
    ]


def ours(book: Book, work: list[Request]) -> float:
    """Return microseconds per request."""
    start = time.perf_counter()
    for model, plain, read, output in work:
        book.price("openai", model, None, AT_NS, plain, read, 0, 0, output)
    return (time.perf_counter() - start) / len(work) * 1e6


def theirs(work: list[Request]) -> float:
    """Return microseconds per request."""
    start = time.perf_counter()
    for model, plain, read, output in work:
        usage = Usage(input_tokens=plain + read, cache_read_tokens=read, output_tokens=output)
        calc_price(usage, model, provider_id="openai", genai_request_timestamp=AT)
    return (time.perf_counter() - start) / len(work) * 1e6


def main() -> None:
    """Print a line for each side, and the ratio."""
    started = time.perf_counter()
    book = Book()
    built = time.perf_counter() - started
    work = requests(200_000)
    ours(book, work[:100])
    theirs(work[:100])
    mine, library = min(ours(book, work) for _ in range(3)), min(theirs(work[:5_000]) for _ in range(3))
    print(f"book {book.hash} built in {built * 1000:.0f} ms")
    print(f"Book.price   {mine:8.2f} us a request")
    print(f"calc_price   {library:8.2f} us a request")
    print(f"ratio        {library / mine:8.0f}")


if __name__ == "__main__":
    main()
