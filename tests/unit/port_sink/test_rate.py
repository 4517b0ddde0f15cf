"""The rate of requests is planned so that Port's limit is never exceeded."""

from __future__ import annotations

from tests.support.clock import HandClock

from tallystream.agents.port_sink.port.rate import RateLimiter


def said(clock: HandClock, limit: int, remaining: int, left: float = 300.0) -> dict[str, str]:
    return {
        "x-ratelimit-limit": str(limit), "x-ratelimit-period": "300", "x-ratelimit-remaining": str(remaining),
        "x-ratelimit-reset": str(clock.now_ns() / 1e9 + left),
    }  # fmt: skip


class TestPace:
    async def test_rate_limit_is_never_exceeded(self) -> None:
        """A token bucket like Port's: a burst of 20, refilled at the limit's rate; each call takes a token."""
        clock = HandClock(1_000.0)
        limiter = RateLimiter(clock, clock.sleep)
        limit, burst = 3_000, 20
        tokens, filled, began, used = float(burst), clock.seconds, clock.seconds, 0
        for _ in range(4_000):
            await limiter.wait()
            tokens = min(burst, tokens + (clock.seconds - filled) * limit / 300)
            filled = clock.seconds
            if clock.seconds - began >= 300:
                began, used = clock.seconds, 0
            assert tokens >= 1, "throttled"
            assert used < limit, "throttled"
            tokens, used = tokens - 1, used + 1
            limiter.observe(said(clock, limit, limit - used, 300 - (clock.seconds - began)))
        assert clock.seconds - 1_000 < 4_000 / (limit / 300) * 1.25, "and little of it is left unused"

    async def test_rate_falls_when_others_use_the_limit(self) -> None:
        clock = HandClock(1_000.0)
        limiter = RateLimiter(clock, clock.sleep)
        limiter.observe(said(clock, 35_000, 34_000))
        assert limiter.rate > 90
        limiter.observe(said(clock, 35_000, 300, 100.0))
        assert 2 < limiter.rate <= 3

    async def test_all_senders_pause_after_a_429(self) -> None:
        clock = HandClock(1_000.0)
        limiter = RateLimiter(clock, clock.sleep)
        limiter.throttled({}, 7.0, 0)
        await limiter.wait()
        assert clock.seconds >= 1_007
        before = clock.seconds
        limiter.throttled(said(clock, 100, 0, 42.0), None, 0)
        await limiter.wait()
        assert clock.seconds - before >= 42
        before = clock.seconds
        limiter.throttled({}, None, 3)
        await limiter.wait()
        assert clock.seconds - before >= 8

    def test_invalid_rate_limit_headers_are_ignored(self) -> None:
        clock = HandClock(1_000.0)
        limiter = RateLimiter(clock, clock.sleep)
        for headers in ({}, {"x-ratelimit-limit": "many"}, said(clock, 0, 0)):
            limiter.observe(headers)
        assert limiter.rate == 5
