"""The HTTP client for Port: access tokens, trusted certificates, and classified errors."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import aiohttp
import orjson

from tallystream import __version__
from tallystream.agents.port_sink.errors import PortError, PortFailureReason
from tallystream.agents.port_sink.port.token import AccessTokens
from tallystream.streams.service.clock import Clock, SystemClock
from tallystream.streams.service.http import PAGE, is_page, retry_after, trust

EU = "https://api.getport.io"
MAX_ANSWER = 16 << 20


@dataclass(frozen=True)
class PortClientConfig:
    """How to reach Port. Durations in seconds."""

    client_id: str
    client_secret: str = field(repr=False)
    base_url: str = EU
    """`https://api.getport.io` for accounts in the EU, `https://api.us.getport.io` in the US; `/v1` may be left out."""
    identifier: str = "tallystream"
    """Part of the User-Agent, by which Port attributes entities to their source."""
    proxy: str | None = field(default=None, repr=False)
    ca: Path | None = None
    timeout: float = 30.0
    """From sending a request to the last byte of its response."""
    connections: int = 16

    @property
    def url(self) -> str:
        """Return the base URL with the API's version."""
        base = self.base_url.rstrip("/")
        return base if base.endswith("/v1") else f"{base}/v1"

    @property
    def user_agent(self) -> str:
        """Return the User-Agent, which Port shows as the source of our entities."""
        return f"tallystream/{self.identifier}/{__version__}"

    def ssl_context(self) -> ssl.SSLContext:
        """Return the TLS context.

        Raises:
            UsageError: the CA file cannot be read or does not hold certificates.

        """
        return trust(self.ca, "TALLYSTREAM_PORT_CA")


class PortAnswer(NamedTuple):
    """An answer below 400."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str]


class PortAnswerError(PortError):
    """An answer of 400 and above, with its headers."""

    headers: Mapping[str, str] = {}


class PortClient:
    """An HTTP client, as an async context manager."""

    def __init__(self, config: PortClientConfig, clock: Clock | None = None) -> None:
        self.config = config
        self._clock = clock or SystemClock()
        self._ssl = config.ssl_context()
        self.tokens = AccessTokens(self._ask, self._clock)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={"Accept": "application/json", "User-Agent": self.config.user_agent},
            timeout=aiohttp.ClientTimeout(total=self.config.timeout),
            connector=aiohttp.TCPConnector(ssl=self._ssl, limit=self.config.connections),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self, method: str, path: str, *, body: bytes | None = None, query: Mapping[str, str] | None = None
    ) -> PortAnswer:
        """Return the response to an authorised request; a refused token is renewed once.

        Raises:
            PortAnswerError: Port answered 400 or above.
            PortError: the response did not arrive completely.

        """
        for last in (False, True):
            token = await self.tokens.get()
            try:
                return await self._once(method, path, body, query, {"Authorization": f"Bearer {token.text}"})
            except PortAnswerError as exc:
                if exc.status != 401 or last:
                    raise
                self.tokens.refused(token)
        raise AssertionError("unreachable")

    async def find(self, path: str) -> PortAnswer | None:
        """Return the response to GET, None when Port does not have what it names.

        Raises:
            PortError: as `request`.

        """
        try:
            return await self.request("GET", path)
        except PortAnswerError as exc:
            if exc.why is PortFailureReason.NOT_FOUND:
                return None
            raise

    async def _ask(self) -> tuple[str, float]:
        config = self.config
        body = orjson.dumps({"clientId": config.client_id, "clientSecret": config.client_secret})
        try:
            answer = await self._once("POST", "/auth/access_token", body, None, {})
        except PortAnswerError as exc:
            if exc.retryable:
                raise
            # These failures concern the address or the credentials, not the content of the request.
            raise PortError(
                PortFailureReason.CREDENTIALS, exc.message, _HINTS[PortFailureReason.CREDENTIALS], status=exc.status
            ) from None
        text, seconds = answer.body.get("accessToken"), answer.body.get("expiresIn")
        if not isinstance(text, str) or not isinstance(seconds, int | float) or seconds <= 0:
            raise PortError(
                PortFailureReason.SERVER, "Port's answer holds no access token", _HINTS[PortFailureReason.SERVER]
            )
        return text, float(seconds)

    async def _once(
        self, method: str, path: str, body: bytes | None, query: Mapping[str, str] | None, headers: Mapping[str, str]
    ) -> PortAnswer:
        assert self._session is not None, "used outside of its context"
        try:
            async with self._session.request(
                method,
                self.config.url + path,
                data=body,
                params=query,
                headers={**headers, "Content-Type": "application/json"} if body is not None else headers,
                proxy=self.config.proxy,
                allow_redirects=False,
            ) as response:
                raw = await _read(response)
                status, given = response.status, response.headers
        # The messages of these errors are not repeated, because some contain the request with its headers.
        except TimeoutError:
            why = f"no complete response within {self.config.timeout:g} s"
            raise PortError(PortFailureReason.UNANSWERED, why, _HINTS[PortFailureReason.UNANSWERED]) from None
        except aiohttp.ClientConnectorCertificateError:
            raise PortError(
                PortFailureReason.TLS, "Port's certificate is not trusted", _HINTS[PortFailureReason.TLS]
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            why = f"the connection failed ({type(exc).__name__})"
            raise PortError(PortFailureReason.UNANSWERED, why, _HINTS[PortFailureReason.UNANSWERED]) from None
        try:
            answer = orjson.loads(raw) if raw else {}
        except ValueError:
            answer = None
        if status >= 300:
            raise self._refusal(status, answer if not is_page(raw) else {"message": PAGE}, given)
        if is_page(raw):
            raise PortError(PortFailureReason.UNANSWERED, PAGE, _HINTS[PortFailureReason.UNANSWERED])
        if not isinstance(answer, dict):
            raise PortError(
                PortFailureReason.UNANSWERED, "Port's answer is not whole JSON", _HINTS[PortFailureReason.UNANSWERED]
            )
        return PortAnswer(status, answer, given)

    def _refusal(self, status: int, answer: object, headers: Mapping[str, str]) -> PortAnswerError:
        said = answer.get("message") or answer.get("error") if isinstance(answer, dict) else None
        text = f"Port answered {status}" + (f": {self._scrubbed(said)}" if isinstance(said, str) else "")
        why = _STATUS.get(status, PortFailureReason.SERVER if status >= 500 else PortFailureReason.REJECTED)
        refusal = PortAnswerError(
            why, text, _HINTS[why], status=status, retry_after=retry_after(headers.get("Retry-After", ""), self._clock)
        )
        refusal.headers = headers
        return refusal

    def _scrubbed(self, text: str) -> str:
        return " ".join(text.split()).replace(self.config.client_secret, "***")[:300]


async def _read(response: aiohttp.ClientResponse) -> bytes:
    raw = bytearray()
    async for part in response.content.iter_any():
        raw += part
        if len(raw) > MAX_ANSWER:
            raise ValueError("the answer is too long to be Port's")
    return bytes(raw)


_STATUS = {
    401: PortFailureReason.CREDENTIALS,
    403: PortFailureReason.CREDENTIALS,
    404: PortFailureReason.NOT_FOUND,
    408: PortFailureReason.UNANSWERED,
    413: PortFailureReason.TOO_LARGE,
    429: PortFailureReason.THROTTLED,
}
_HINTS = {
    PortFailureReason.CREDENTIALS: "check TALLYSTREAM_PORT_CLIENT_ID and TALLYSTREAM_PORT_CLIENT_SECRET (Port: ... >"
    " Credentials), and that TALLYSTREAM_PORT_BASE_URL is your account's region",
    PortFailureReason.NOT_FOUND: "does the blueprint exist? Check with `tallystream port blueprints diff`",
    PortFailureReason.TOO_LARGE: "one entity is over 1 MiB: map fewer properties",
    PortFailureReason.REJECTED: "`tallystream port blueprints diff` shows whether blueprint and mapping fit",
    PortFailureReason.THROTTLED: "another client uses up the organisation's rate limit",
    PortFailureReason.SERVER: "see Port's status page",
    PortFailureReason.UNANSWERED: "is Port (or the proxy) reachable from here? TALLYSTREAM_PORT_BASE_URL,"
    " TALLYSTREAM_PORT_PROXY",
    PortFailureReason.TLS: "TALLYSTREAM_PORT_CA names your CA",
}
