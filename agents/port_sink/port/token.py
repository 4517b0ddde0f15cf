"""The access token: cached, renewed before it expires, and requested again when Port refuses it early."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tallystream.streams.service.clock import Clock

AHEAD = 300.0
"""Seconds before its expiry at which a token is renewed; at most a fifth of its lifetime."""
Ask = Callable[[], Awaitable[tuple[str, float]]]
"""Returns a new token and its validity in seconds."""


@dataclass(frozen=True)
class AccessToken:
    """A token, whose text is never shown in logs or reprs."""

    text: str
    renew_at: float
    """Monotonic seconds."""

    def __repr__(self) -> str:
        return "Token(...)"


class AccessTokens:
    """Provides the current token; only one request at a time fetches a new one."""

    def __init__(self, ask: Ask, clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._token: AccessToken | None = None
        self._turn = asyncio.Lock()
        self.longest = 0.0
        """Longest validity of a token so far, in seconds: a request that starts now is refused after that."""

    async def get(self) -> AccessToken:
        """Return a token that is valid for a while.

        Raises:
            PortError: Port did not issue one.

        """
        token = self._token
        if token is not None and self._clock.monotonic() < token.renew_at:
            return token
        async with self._turn:
            if self._token is token:
                self._token = await self._new()
            assert self._token is not None
            return self._token

    def refused(self, token: AccessToken) -> None:
        """Note that Port refuses a token although it should be good."""
        if self._token is token:
            self._token = None

    async def _new(self) -> AccessToken:
        asked = self._clock.monotonic()
        text, seconds = await self._ask()
        self.longest = max(self.longest, seconds)
        return AccessToken(text, asked + seconds - min(AHEAD, seconds / 5))
