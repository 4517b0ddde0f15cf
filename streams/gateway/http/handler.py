"""OTLP over HTTP: one handler on aiohttp's low-level server, from the request line to the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, get_args

import orjson
import structlog
from aiohttp import web

from tallystream.schemas.connections import Connection, Signal
from tallystream.schemas.errors import Reason
from tallystream.schemas.ingest import CONNECTION_HEADER
from tallystream.schemas.otlp import Encoding, partial_success
from tallystream.streams.gateway import ingest, routes
from tallystream.streams.gateway.auth import Gatekeeper, Unjudged, credentials
from tallystream.streams.gateway.config import GatewayConfig
from tallystream.streams.gateway.connections.activity import ActivityLog
from tallystream.streams.gateway.delivery.group_commit import Delivery
from tallystream.streams.gateway.errors import NotDurableError, RequestRefusedError, UndecodableError
from tallystream.streams.gateway.http import body as bodies
from tallystream.streams.gateway.http.responses import Replies
from tallystream.streams.gateway.metrics import Metrics
from tallystream.streams.gateway.quarantine import Quarantine
from tallystream.streams.service.ops import Health

_SIGNALS: dict[str, Signal] = {signal: signal for signal in get_args(Signal)}
_ENCODINGS = {encoding.value: encoding for encoding in Encoding}
_NAMES = {Encoding.PROTOBUF: "protobuf", Encoding.JSON: "json", None: "unknown"}
log = structlog.get_logger()


class _Request:
    """What is known of a request so far: for its metrics, and for the encoding of an error."""

    __slots__ = ("encoding", "provider", "signal")

    def __init__(self) -> None:
        self.encoding: Encoding | None = None
        self.provider = "unknown"
        self.signal = "unknown"


class Handler:
    """Answers every request; never raises, never answers 500 (which would make clients drop what they hold)."""

    def __init__(
        self,
        config: GatewayConfig,
        gatekeeper: Gatekeeper,
        delivery: Delivery,
        quarantine: Quarantine,
        activity: ActivityLog,
        messages: ingest.Messages,
        replies: Replies,
        metrics: Metrics,
        ready: Callable[[], Health],
    ) -> None:
        self._config = config
        self._gatekeeper = gatekeeper
        self._delivery = delivery
        self._quarantine = quarantine
        self._activity = activity
        self._messages = messages
        self._replies = replies
        self._metrics = metrics
        self._ready = ready
        self._budget = bodies.Budget(config.max_held_bytes, config.retry_after)
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
            # The traceback's frames would be safe, but a message may quote the body: only the type is logged.
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
        path = request.path
        if path == "/readyz" and request.method in ("GET", "HEAD"):
            return self._health()
        known.encoding = _encoding(request)
        target = routes.parse(path)
        if target is None:
            raise RequestRefusedError(
                404, "no such path: telemetry goes to /v1/logs, /v1/metrics or /v1/traces below the base URL"
            )
        known.provider = target.provider or "unknown"
        known.signal = target.signal or "unknown"
        if request.method != "POST":
            raise RequestRefusedError(405, "only POST is allowed here", headers={"Allow": "POST"})
        if known.encoding is None:
            raise RequestRefusedError(415, "Content-Type must be application/x-protobuf or application/json")
        shown = credentials(target, request.headers.get(CONNECTION_HEADER), request.headers.get("Authorization"))
        admitted = await self._gatekeeper.admit(shown)
        if isinstance(admitted, Connection):
            known.provider = admitted.provider
        signal = _SIGNALS[target.signal] if target.signal else None
        with self._budget.lease() as lease:
            return await self._take(request, known, admitted, signal, lease)

    async def _take(
        self,
        request: web.BaseRequest,
        known: _Request,
        admitted: Connection | Unjudged,
        signal: Signal | None,
        lease: bodies.Lease,
    ) -> web.StreamResponse:
        assert known.encoding is not None
        limit = self._config.max_body_bytes
        body = await bodies.read(request, limit=limit, within=self._config.body_timeout, lease=lease)
        try:
            plain = await bodies.decode(body, limit=limit, lease=lease)
            decoded = await ingest.decode(plain, known.encoding, signal)
        except UndecodableError as refused:
            await self._keep_undecodable(admitted, refused.message, body.raw)
            raise
        known.signal = decoded.signal
        self._metrics.took(known.provider, decoded.signal, len(plain), decoded.records)
        if isinstance(admitted, Unjudged):
            await self._quarantine.hold(admitted, decoded, body.raw)
        else:
            await self._deliver(admitted, decoded, body.raw)
        rejected = decoded.logs.rejected if decoded.logs is not None else []
        if not rejected:
            return self._replies.success(request, known.encoding)
        for record in rejected:
            self._metrics.dead_letters.labels(record.reason).inc()
            if record.reason is Reason.UNRECOGNISED_USAGE:
                self._metrics.unrecognised.labels(known.provider).inc()
        text = (
            f"{len(rejected)} usage records could not be counted, the first: {rejected[0].reason}: {rejected[0].detail}"
        )
        return self._replies.answer(
            200, partial_success(decoded.signal, len(rejected), text, known.encoding), known.encoding
        )

    async def _deliver(self, connection: Connection, decoded: ingest.Decoded, raw: bytes) -> None:
        if decoded.logs is not None and (decoded.logs.packs or decoded.logs.rejected):
            messages = self._messages.usage(decoded.logs.packs, connection.connection_id)
            if decoded.logs.rejected:
                messages += self._messages.rejected(
                    decoded.logs.rejected, ingest.digest_of(raw), connection.connection_id
                )
            await self._delivery.deliver(messages)
            events = sum(len(pack.events) for pack in decoded.logs.packs)
            self._metrics.events.labels(connection.provider).inc(events)
            if events:
                newest = max(pack.events[-1]["occurred_at"] for pack in decoded.logs.packs if pack.events)
                self._metrics.event_to_durable.observe(max(0.0, (time.time_ns() - newest) / 1e9))
        self._activity.note(connection.connection_id, decoded.signal, decoded.records)

    async def _keep_undecodable(self, admitted: Connection | Unjudged, detail: str, raw: bytes) -> None:
        if isinstance(admitted, Unjudged):
            await self._quarantine.hold_undecodable(admitted, detail, raw)
        else:
            await self._delivery.deliver(
                [self._messages.undecodable(detail, len(raw), ingest.digest_of(raw), admitted.connection_id)]
            )
        self._metrics.dead_letters.labels(Reason.UNDECODABLE).inc()

    def _health(self) -> web.Response:
        health = self._ready()
        document = orjson.dumps({"ok": health.ok, "why": health.why})
        return self._replies.answer(200 if health.ok else 503, document, Encoding.JSON)


def _encoding(request: web.BaseRequest) -> Encoding | None:
    header = request.headers.get("Content-Type")
    if header is None:
        return None
    found = _ENCODINGS.get(header)
    return found if found is not None else _ENCODINGS.get(header.partition(";")[0].strip().lower())


def _where(exc: BaseException) -> str:
    """Return the innermost frame: file and line, no values."""
    trace: Any = exc.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace is not None else ""
