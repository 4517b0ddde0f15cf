"""OTLP over HTTP: one handler on aiohttp's low-level server, from the request line to the response."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, get_args
from urllib.parse import unquote

import orjson
import structlog
from aiohttp import HttpVersion11, web

from tallystream.schemas.connections import Signal
from tallystream.schemas.ingest import CONNECTION_HEADER
from tallystream.schemas.otlp import Encoding, partial_success
from tallystream.streams.gateway import routes
from tallystream.streams.gateway.acceptance import Acceptance
from tallystream.streams.gateway.auth import credentials
from tallystream.streams.gateway.budget import Budget
from tallystream.streams.gateway.config import GatewayConfig
from tallystream.streams.gateway.errors import MAX_HEAD, NotDurableError, RequestRefusedError, head_too_long
from tallystream.streams.gateway.http import body as bodies
from tallystream.streams.gateway.http.responses import Replies
from tallystream.streams.gateway.metrics import Metrics
from tallystream.streams.gateway.repeated import said_once
from tallystream.streams.service.ops import Health

_SIGNALS: dict[str, Signal] = {signal: signal for signal in get_args(Signal)}
_ENCODINGS = {encoding.value: encoding for encoding in Encoding}
_NAMES = {Encoding.PROTOBUF: "protobuf", Encoding.JSON: "json", None: "unknown"}
_CLOSE = {"Connection": "close"}
log = structlog.get_logger()


class _Request:
    """What is known about a request so far, for its metrics and for the encoding of an error."""

    __slots__ = ("encoding", "provider", "signal")

    def __init__(self) -> None:
        self.encoding: Encoding | None = None
        self.provider = "unknown"
        self.signal = "unknown"


class Handler:
    """Answers every request; never raises and never answers 500, which would make clients drop their data."""

    def __init__(
        self,
        config: GatewayConfig,
        acceptance: Acceptance,
        budget: Budget,
        replies: Replies,
        metrics: Metrics,
        ready: Callable[[], Health],
    ) -> None:
        self._config = config
        self._acceptance = acceptance
        self._budget = budget
        self._replies = replies
        self._metrics = metrics
        self._ready = ready
        self.in_progress = 0
        self._quiet: asyncio.Future[None] | None = None

    async def quiet(self) -> None:
        """Wait until no request is in progress."""
        while self.in_progress:
            self._quiet = asyncio.get_running_loop().create_future()
            await self._quiet

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        started = time.perf_counter()
        known = _Request()
        self.in_progress += 1
        try:
            response = await self._answer(request, known)
        except RequestRefusedError as refused:
            response = self._replies.refusal(refused, known.encoding)
        except NotDurableError:
            response = self._replies.refusal(
                self._unavailable("the gateway cannot store this now, send it again"), known.encoding
            )
        except Exception as exc:  # noqa: BLE001 - whatever it is, the client must keep what it holds
            # The traceback's frames would be safe, but an exception's message may quote the body, so only its type is
            # logged.
            log.error("request_failed", error=type(exc).__name__, where=_where(exc))  # noqa: TRY400
            response = self._replies.refusal(self._unavailable("the gateway failed, send it again"), known.encoding)
        finally:
            self.in_progress -= 1
            if self._quiet is not None and not self.in_progress and not self._quiet.done():
                self._quiet.set_result(None)
        code = str(response.status)
        self._metrics.answered(
            (known.provider, known.signal, code, _NAMES[known.encoding]), time.perf_counter() - started
        )
        return response

    def _unavailable(self, message: str) -> RequestRefusedError:
        return RequestRefusedError(503, message, retry_after=self._config.retry_after)

    async def _answer(self, request: web.BaseRequest, known: _Request) -> web.StreamResponse:
        path = _path(request)
        if path == "/readyz" and request.method in ("GET", "HEAD"):
            return self._health()
        known.encoding = _encoding(request)
        if sum([len(name) + len(value) for name, value in request.raw_headers]) > MAX_HEAD:
            raise head_too_long()
        target = routes.parse(path)
        known.provider = target.provider or "unknown"
        known.signal = target.signal or "unknown"
        if request.method != "POST":
            raise RequestRefusedError(405, "only POST is allowed here", headers={"Allow": "POST"})
        if known.encoding is None:
            raise RequestRefusedError(415, "Content-Type must be application/x-protobuf or application/json")
        _check_framing(request)
        shown = credentials(target, request.headers.get(CONNECTION_HEADER), request.headers.get("Authorization"))
        destination = await self._acceptance.destination(shown)
        known.provider = destination.provider
        signal = _SIGNALS[target.signal] if target.signal else None
        with self._budget.lease() as lease:
            if "Expect" in request.headers:
                await _continue(request)
            body = await bodies.read(
                request,
                limit=self._acceptance.limit(destination),
                idle=self._config.body_timeout,
                within=self._config.upload_timeout,
                lease=lease,
            )
            accepted = await self._acceptance.take(body, known.encoding, signal, destination, lease)
        known.signal = accepted.signal
        if not accepted.rejected:
            return self._replies.success(request, known.encoding)
        text = partial_success(accepted.signal, accepted.rejected, accepted.why, known.encoding)
        return self._replies.answer(200, text, known.encoding)

    def _health(self) -> web.Response:
        health = self._ready()
        document = orjson.dumps({"ok": health.ok, "why": health.why})
        return self._replies.answer(200 if health.ok else 503, document, Encoding.JSON)


def _path(request: web.BaseRequest) -> str:
    """Return the decoded path. A path that begins with two slashes is kept, although a URL parser would read a host
    from it.
    """
    raw = request.raw_path
    return unquote(raw.partition("?")[0]) if raw.startswith("//") else request.path


async def _continue(request: web.BaseRequest) -> None:
    """Ask for the body; only now, because a client that is refused by its headers need not send it at all."""
    if request.headers.get("Expect") and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


def _check_framing(request: web.BaseRequest) -> None:
    """Raise RequestRefusedError when the framing of the body is not supported."""
    headers = request.headers
    if "Transfer-Encoding" not in headers and "Expect" not in headers:
        return
    coding = headers.get("Transfer-Encoding", "").strip().lower()
    if coding not in ("", "chunked"):
        raise RequestRefusedError(
            400, "unknown Transfer-Encoding: use chunked or none, and Content-Encoding for compression", headers=_CLOSE
        )
    expected = headers.get("Expect", "").strip().lower()
    if expected not in ("", "100-continue"):
        raise RequestRefusedError(417, "unknown Expect: use 100-continue or none")


def _encoding(request: web.BaseRequest) -> Encoding | None:
    header = request.headers.get("Content-Type")
    if header is None:
        return None
    found = _ENCODINGS.get(header)
    return found if found is not None else _ENCODINGS.get(said_once(header).partition(";")[0].strip().lower())


def _where(exc: BaseException) -> str:
    """Return the innermost frame: file and line, no values."""
    trace: Any = exc.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace is not None else ""
