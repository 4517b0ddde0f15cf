"""OTLP/gRPC: three services of one method each, and a health service; no reflection.

The ingest id comes in the metadata (`x-tallystream-connection`), a bearer as in HTTP. Messages stay bytes: they are
decoded by the same code as HTTP bodies, and an OK means the same as a 200.

The library decompresses a message when it reads it, and a message of 60 kB may expand to 64 MiB, held three times. So
`Export` is implemented as a client-streaming method, which is the same on the wire: unauthorized calls are refused
before the message is read, and only a few messages are read at one time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tallystream.schemas.connections import Signal
from tallystream.schemas.ingest import CONNECTION_HEADER
from tallystream.schemas.otlp import Encoding, partial_success, status, success
from tallystream.streams.gateway.acceptance import Acceptance, Body
from tallystream.streams.gateway.auth import credentials
from tallystream.streams.gateway.budget import Budget
from tallystream.streams.gateway.config import GatewayConfig
from tallystream.streams.gateway.decompress import too_large
from tallystream.streams.gateway.errors import GRPC_CODES, NotDurableError, RequestRefusedError
from tallystream.streams.gateway.metrics import Metrics
from tallystream.streams.gateway.routes import RouteTarget

SERVICES: Final[dict[str, Signal]] = {
    "opentelemetry.proto.collector.logs.v1.LogsService": "logs",
    "opentelemetry.proto.collector.metrics.v1.MetricsService": "metrics",
    "opentelemetry.proto.collector.trace.v1.TraceService": "traces",
}
CONCURRENT_CALLS: Final = 1_024
"""Maximum number of concurrent calls; beyond it the library answers RESOURCE_EXHAUSTED."""
CONCURRENT_STREAMS: Final = 128
"""Maximum number of concurrent calls per connection."""
READING: Final = 16
READING_OF_ONE: Final = 4
"""Maximum number of messages being read at one time, of all senders and of one sender."""
MAX_METADATA: Final = 64 << 10
_DETAILS: Final = "grpc-status-details-bin"
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
log = structlog.get_logger()


class _Service:
    """One signal's `Export`."""

    def __init__(self, server: GrpcServer, signal: Signal) -> None:
        self._server = server
        self._signal: Signal = signal

    async def export(self, messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        """Answer one call; never with an error that makes a client drop data it could send again."""
        started = time.perf_counter()
        shown = {key.lower(): value for key, value in context.invocation_metadata() or ()}
        provider, refused, answer = "unknown", None, b""
        self._server.in_progress += 1
        try:
            provider, answer = await self._server.take(messages, self._signal, shown)
        except RequestRefusedError as exc:
            refused = exc
        except NotDurableError:
            refused = self._server.unavailable("the gateway cannot store this now, send it again")
        except Exception as exc:  # noqa: BLE001 - whatever it is, the client must keep what it holds
            log.error("request_failed", error=type(exc).__name__)  # noqa: TRY400 - a message may quote the body
            refused = self._server.unavailable("the gateway failed, send it again")
        finally:
            self._server.in_progress -= 1
        code = "200" if refused is None else str(refused.status)
        self._server.metrics.answered((provider, self._signal, code, "grpc"), time.perf_counter() - started)
        if refused is not None:
            await _abort(context, refused)
        return answer


async def _abort(context: grpc.aio.ServicerContext[bytes, bytes], refused: RequestRefusedError) -> None:
    """End the call with the status, and with a RetryInfo if sending again may succeed."""
    number = GRPC_CODES.get(refused.status, 2)
    trailing: tuple[tuple[str, bytes], ...] = ()
    if refused.retry_after is not None:
        trailing = ((_DETAILS, status(number, refused.message, Encoding.PROTOBUF, refused.retry_after)),)
    await context.abort(_CODES[number], refused.message, trailing)


class _Turns:
    """The calls of one sender that read their message, or wait to read it."""

    def __init__(self) -> None:
        self.semaphore = asyncio.Semaphore(READING_OF_ONE)
        self.users = 0


class GrpcServer:
    """Listens beside the HTTP server; `stop` lets calls in progress finish."""

    def __init__(self, config: GatewayConfig, acceptance: Acceptance, budget: Budget, metrics: Metrics) -> None:
        self._config = config
        self._acceptance = acceptance
        self._budget = budget
        self.metrics = metrics
        self.in_progress = 0
        self._server: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()
        self._reading = asyncio.Semaphore(READING)
        self._senders: dict[str, _Turns] = {}
        self.port: int | None = None
        """The actual port, None while it does not listen."""

    def unavailable(self, message: str) -> RequestRefusedError:
        """Return a refusal that asks the client to send again."""
        return RequestRefusedError(503, message, retry_after=self._config.retry_after)

    async def start(self, port: int) -> None:
        """Start to listen; then `port` holds the actual port.

        Raises:
            OSError: the address is taken or not ours.

        """
        config = self._config
        options = (
            ("grpc.max_receive_message_length", config.max_body_bytes),
            ("grpc.max_metadata_size", MAX_METADATA),
            ("grpc.absolute_max_metadata_size", MAX_METADATA),
            ("grpc.max_concurrent_streams", CONCURRENT_STREAMS),
            ("grpc.so_reuseport", int(config.reuse_port)),
            # accept any keepalive interval, because clients behind a NAT ping often
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_ping_strikes", 0),
        )
        server = grpc.aio.server(options=options, maximum_concurrent_rpcs=CONCURRENT_CALLS)
        for name, signal in SERVICES.items():
            # without (de)serializers, messages are plain bytes
            method = grpc.stream_unary_rpc_method_handler(_Service(self, signal).export)
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"Export": method}),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        for name in ("", *SERVICES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        host = f"[{config.host}]" if ":" in config.host else config.host or "[::]"
        try:
            if config.tls_cert and config.tls_key:
                secured = _credentials(config.tls_cert, config.tls_key)
                self.port = server.add_secure_port(f"{host}:{port}", secured)
            else:
                self.port = server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as exc:
            raise OSError(str(exc)) from exc
        self._server = server
        await server.start()

    async def stop(self) -> None:
        """Refuse new calls and answer those in progress (for at most `stop_timeout` seconds)."""
        self.port = None
        if self._server is not None:
            await self._health.enter_graceful_shutdown()
            await self._server.stop(self._config.stop_timeout)
            self._server = None

    async def take(
        self, messages: AsyncIterator[bytes], signal: Signal, shown: Mapping[str, object]
    ) -> tuple[str, bytes]:
        """Return the provider and the response's bytes; raises what `Acceptance` raises."""
        header, authorization = shown.get(CONNECTION_HEADER), shown.get("authorization")
        found = credentials(
            RouteTarget(None, None, signal),
            header if isinstance(header, str) else None,
            authorization if isinstance(authorization, str) else None,
        )
        destination = await self._acceptance.destination(found)
        raw = await self._read(messages, found.ingest_sha256)
        if len(raw) > (limit := self._acceptance.limit(destination)):
            raise too_large(limit)
        with self._budget.lease() as lease:
            lease.take(len(raw))
            accepted = await self._acceptance.take(Body(raw, ""), Encoding.PROTOBUF, signal, destination, lease)
        if not accepted.rejected:
            return destination.provider, success(Encoding.PROTOBUF)
        answer = partial_success(signal, accepted.rejected, accepted.why, Encoding.PROTOBUF)
        return destination.provider, answer

    async def _read(self, messages: AsyncIterator[bytes], sender: str) -> bytes:
        """Read and return the call's message; waits for its turn, because the number of concurrent reads is limited."""
        own = self._senders[sender] = self._senders.get(sender) or _Turns()
        own.users += 1
        try:
            async with own.semaphore, self._reading, asyncio.timeout(self._config.upload_timeout):
                return await anext(messages)
        except StopAsyncIteration:
            raise RequestRefusedError(400, "the call has no message") from None
        except TimeoutError:
            raise RequestRefusedError(408, "the message did not arrive in time") from None
        finally:
            own.users -= 1
            if not own.users:
                del self._senders[sender]


def _credentials(cert: Path, key: Path) -> grpc.ServerCredentials:
    """Return credentials that serve new connections with the current contents of the files."""
    seen = None

    def read() -> Any:
        pair = (key.read_bytes(), cert.read_bytes())
        return pair, grpc.ssl_server_certificate_configuration([pair])

    def fetch() -> Any:
        nonlocal seen
        try:
            pair, configuration = read()
        except OSError:
            return None
        if pair == seen:
            return None
        seen = pair
        return configuration

    seen, first = read()
    return grpc.dynamic_ssl_server_credentials(first, fetch, require_client_authentication=False)
