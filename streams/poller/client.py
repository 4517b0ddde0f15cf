"""HTTP requests to a provider: retried where that may help, without redirects, with a limit on the response size."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from yarl import URL

from tallystream import __version__
from tallystream.schemas import exact
from tallystream.schemas.errors import InvalidBodyError
from tallystream.streams.poller.credentials import ApiKeys, needs
from tallystream.streams.poller.errors import FailureReason, PollError
from tallystream.streams.poller.params import Pairs
from tallystream.streams.poller.request import PageAnswer, PageRequest
from tallystream.streams.service.backoff import Backoff
from tallystream.streams.service.clock import Clock, SystemClock
from tallystream.streams.service.http import PAGE, is_page, retry_after, trust

BEYOND_RETRY_AFTER = Backoff(first=0.1, jitter=True)
"""Additional wait after a Retry-After, because clocks differ."""
Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True)
class OpenAIClientConfig:
    """How to reach OpenAI. Durations in seconds."""

    base_url: str = "https://api.openai.com/v1"
    organization: str | None = None
    project: str | None = None
    proxy: str | None = field(default=None, repr=False)
    ca: Path | None = None
    timeout: float = 30.0
    """From sending a request to the last byte of its response."""
    attempts: int = 5
    first_wait: float = 1.0
    """Before the second attempt; doubled each time, with jitter."""
    longest_wait: float = 120.0
    """A longer Retry-After ends the request; the next poll tries again."""
    max_bytes: int = 64 << 20
    name: str = "OpenAI"
    """The provider's name for messages."""
    auth: Literal["bearer", "basic", "api_key", "none"] = "bearer"
    """How the key is sent: as a bearer token, as the password of `username`, in `key_header`, or not at all."""
    key_header: str = "Authorization"
    """With `api_key`, the header that carries the key."""
    username: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    """Sent with every request."""

    def ssl_context(self) -> ssl.SSLContext:
        """Return the TLS context.

        Raises:
            UsageError: the CA file cannot be read or does not hold certificates.

        """
        return trust(self.ca, "TALLYSTREAM_OPENAI_CA")


def _ignore(_: object) -> None:
    """Do nothing: the default of a callback."""


class OpenAIClient:
    """An HTTP client, as an async context manager. `expect(seconds)` is called before each wait with its maximum
    duration.
    """

    def __init__(
        self,
        config: OpenAIClientConfig,
        tokens: ApiKeys,
        *,
        clock: Clock | None = None,
        sleep: Sleep = asyncio.sleep,
        expect: Callable[[float], None] = _ignore,
        retried: Callable[[FailureReason], None] = _ignore,
    ) -> None:
        self._config = config
        self._tokens = tokens
        self._clock = clock or SystemClock()
        self._sleep = sleep
        self._expect = expect
        self._retried = retried
        self._ssl = config.ssl_context()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {"Accept": "application/json", "User-Agent": f"tallystream/{__version__}"}
        if self._config.organization:
            headers["OpenAI-Organization"] = self._config.organization
        if self._config.project:
            headers["OpenAI-Project"] = self._config.project
        headers |= dict(self._config.headers)
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=self._config.timeout),
            connector=aiohttp.TCPConnector(ssl=self._ssl, limit=8),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str, params: Pairs, key: str = "api") -> Any:
        """Return the response's JSON to a GET, exactly (see `schemas.exact`).

        Raises:
            PollError: as `fetch`.

        """
        return (await self.fetch(PageRequest(path, params, key))).body

    async def fetch(self, request: PageRequest) -> PageAnswer:
        """Return the response's JSON, exactly, and the URL of the next page if its headers name one.

        Raises:
            PollError: the provider did not answer with 200 and JSON after all retries, or the URL of the next page is
                another host's.

        """
        url = self._url(request)
        token = "" if self._config.auth == "none" else self._tokens.get(request.key)
        retrying = AsyncRetrying(
            retry=retry_if_exception(self._again),
            wait=self._wait,
            stop=stop_after_attempt(self._config.attempts),
            sleep=self._pause,
            reraise=True,
        )
        return await retrying(self._once, request, url, token)

    def _url(self, request: PageRequest) -> URL:
        """Return the URL of a request. The key goes nowhere but to the configured host, whatever an answer names."""
        base = self._config.base_url.rstrip("/")
        if not request.named_by_page:
            return URL(base + request.path)
        url = URL(f"{base}/").join(URL(request.path))
        if url.origin() != URL(base).origin():
            raise PollError(
                FailureReason.PAGINATION,
                f"the next page is said to be at {url.host}, which is not the host that is polled",
                "the key is not sent there; declare another pagination",
            )
        return url

    async def _once(self, request: PageRequest, url: URL, token: str) -> PageAnswer:
        assert self._session is not None, "used outside of its context"
        self._expect(self._config.timeout)
        next_url: str | None = None
        try:
            async with self._session.request(
                request.method,
                url,
                params=request.params,
                json=request.body,
                headers={**request.headers, **self._key(token)},
                proxy=self._config.proxy,
                allow_redirects=False,
            ) as response:
                body = await self._body(response)
                if response.status != 200:
                    raise self._refused(response, body, request.path, request.key)
                if (link := response.links.get("next")) is not None:
                    next_url = str(link.get("url"))
        # The messages of these errors are not repeated, because some contain the request with its headers.
        except TimeoutError:
            raise PollError(
                FailureReason.TIMEOUT, f"no complete response within {self._config.timeout:g} s", self._reach()
            ) from None
        except aiohttp.ClientConnectorCertificateError:
            raise PollError(
                FailureReason.CONNECTION,
                "the server's certificate is not trusted",
                "TALLYSTREAM_OPENAI_CA names your CA",
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            why = f"the connection failed ({type(exc).__name__})"
            raise PollError(FailureReason.CONNECTION, why, self._reach()) from None
        if is_page(body):
            raise PollError(FailureReason.UNDECODABLE, PAGE, self._reach())
        try:
            return PageAnswer(await asyncio.to_thread(exact.loads, body), next_url)
        except InvalidBodyError as exc:
            raise PollError(FailureReason.UNDECODABLE, f"the answer is {exc.message[:120]}", self._reach()) from None

    def _reach(self) -> str:
        """Return what to look at when no proper answer arrives."""
        return f"is {URL(self._config.base_url).host} (or the proxy) reachable from here?"

    def _key(self, token: str) -> dict[str, str]:
        """Return the headers that carry the key."""
        config = self._config
        match config.auth:
            case "bearer":
                return {"Authorization": f"Bearer {token}"}
            case "basic":
                return {"Authorization": f"Basic {b64encode(f'{config.username}:{token}'.encode()).decode()}"}
            case "api_key":
                return {config.key_header: token}
        return {}

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        chunks, size = [], 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > self._config.max_bytes:
                raise PollError(
                    FailureReason.TOO_LARGE,
                    f"the answer is larger than {self._config.max_bytes} bytes",
                    "request fewer groups",
                )
            chunks.append(chunk)
        return b"".join(chunks)

    def _refused(self, response: aiohttp.ClientResponse, body: bytes, path: str, key: str) -> PollError:
        status = response.status
        said = PAGE if is_page(body) else self._tokens.scrub(_message(body))
        text = f"{self._config.name} answered {status}" + (f": {said}" if said else "")
        if status == 401:
            return PollError(FailureReason.UNAUTHORISED, text, needs(key))
        if status == 403:
            return PollError(FailureReason.FORBIDDEN, text, needs(key))
        if status == 404:
            return PollError(FailureReason.NOT_FOUND, text, f"is there a {path} at {self._config.base_url}?")
        if status == 429:
            return PollError(
                FailureReason.RATE_LIMITED, text, "poll less often (TALLYSTREAM_OPENAI_INTERVAL)",
                retry_after=retry_after(response.headers.get("Retry-After", ""), self._clock),
            )  # fmt: skip
        if status >= 500 or status == 408:
            return PollError(
                FailureReason.SERVER_ERROR,
                text,
                "see OpenAI's status page",
                retry_after=retry_after(response.headers.get("Retry-After", ""), self._clock),
            )
        if 300 <= status < 400:
            text += ", a redirect"
        return PollError(
            FailureReason.REJECTED, text, "is the base URL right (TALLYSTREAM_OPENAI_BASE_URL), and the request?"
        )

    def _again(self, exc: BaseException) -> bool:
        if not isinstance(exc, PollError) or not exc.retryable:
            return False
        return exc.retry_after is None or exc.retry_after <= self._config.longest_wait

    def _wait(self, state: RetryCallState) -> float:
        """Wait as long as the server asks and a little more, otherwise exponentially with jitter."""
        exc = state.outcome.exception() if state.outcome else None
        assert isinstance(exc, PollError)
        self._retried(exc.why)
        if exc.retry_after is not None:
            return exc.retry_after + BEYOND_RETRY_AFTER.delay(0)
        backoff = Backoff(self._config.first_wait, self._config.longest_wait, jitter=True)
        return backoff.delay(state.attempt_number - 1)

    async def _pause(self, seconds: float) -> None:
        self._expect(seconds)
        await self._sleep(seconds)


def _message(body: bytes) -> str:
    """Return the message of an OpenAI error."""
    try:
        answer = exact.loads(body)
    except InvalidBodyError:
        return ""
    error = answer.get("error") if isinstance(answer, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return " ".join(message.split())[:200] if isinstance(message, str) else ""


class ProviderClients:
    """Combines several clients: the kind of key that a resource needs selects the client."""

    def __init__(self, default: OpenAIClient, by_key: Mapping[str, OpenAIClient]) -> None:
        self._default = default
        self._by_key = dict(by_key)

    async def fetch(self, request: PageRequest) -> PageAnswer:
        """Return the response's JSON, exactly.

        Raises:
            PollError: as `OpenAIClient.fetch`.

        """
        return await self._by_key.get(request.key, self._default).fetch(request)
