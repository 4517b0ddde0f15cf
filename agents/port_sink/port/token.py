"""The access token: asked for once, renewed ahead of its end, asked for again when Port refuses it early."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tallystream.streams.service.clock import Clock

AHEAD = 300.0
"""Seconds before its end at which a token is renewed; at most a fifth of its life."""
Ask = Callable[[], Awaitable[tuple[str, float]]]
"""Returns a new token and for how many seconds it is good."""


@dataclass(frozen=True)
class AccessToken:
    """The token's text never shows."""

    text: str
    renew_at: float
    """Monotonic seconds."""

    def __repr__(self) -> str:
        return "Token(...)"


class AccessTokens:
    """Gives the token in force; one request at a time asks for a new one."""

    def __init__(self, ask: Ask, clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._token: AccessToken | None = None
        self._turn = asyncio.Lock()
        self.longest = 0.0
        """Seconds that the longest-lived token so far was good for: a request begun now is refused after that."""

    async def get(self) -> AccessToken:
        """Return a token that is good for a while.

        Raises:
            PortError: Port gave none.

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
