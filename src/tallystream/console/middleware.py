"""Middleware of every request: security headers, the checks of `auth`, and error pages."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web
from pydantic import ValidationError

from tallystream.console.auth import ConsoleAuthenticator, Visitor
from tallystream.console.errors import BadRequestError, ForbiddenError, NotFoundError
from tallystream.console.metrics import ConsoleMetrics
from tallystream.console.models import ErrorModel
from tallystream.console.params import invalid
from tallystream.schemas.errors import RetryableError, TallystreamError, UsageError

log = structlog.get_logger()
PERSON = web.RequestKey("person", Visitor)
OPEN = ("/login", "/static/")
"""Paths that need no login."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self';"
        " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ErrorPage = Callable[[web.Request, int, ErrorModel], web.StreamResponse]


def status_of(exc: TallystreamError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(exc, BadRequestError):
        return 400
    if isinstance(exc, ForbiddenError):
        return 403
    if isinstance(exc, NotFoundError):
        return 404
    if isinstance(exc, UsageError):
        return 409
    return 503 if isinstance(exc, RetryableError) else 500


def guard(auth: ConsoleAuthenticator, metrics: ConsoleMetrics, error_page: ErrorPage) -> Handler:
    """Return the one middleware."""

    @web.middleware
    async def pass_through(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.monotonic()
        try:
            response = await _answer(request, handler)
        except web.HTTPException as exc:
            response = exc if exc.status < 400 else error_page(request, exc.status, _http_error(exc))
        except TallystreamError as exc:
            response = error_page(
                request, status_of(exc), ErrorModel(code=exc.code, message=exc.message, hint=exc.hint)
            )
        except ValidationError as exc:
            found = invalid(exc)
            response = error_page(request, 400, ErrorModel(code=found.code, message=found.message, hint=found.hint))
        except Exception:
            log.exception("console_request_failed", path=request.path)
            hint = "this is a bug: the console's log has the details"
            response = error_page(request, 500, ErrorModel(code="internal", message="something failed", hint=hint))
        if not response.prepared:
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
        metrics.requests.labels(str(response.status)).inc()
        if request.path != "/live":
            metrics.seconds.observe(time.monotonic() - began)
        return response

    async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not auth.host_is_ours(request):
            metrics.refused.inc()
            error = ErrorModel(
                code="misdirected",
                message="this console does not answer under that host name",
                hint="add the name to TALLYSTREAM_CONSOLE_HOSTS",
            )
            return error_page(request, 421, error)
        if not request.path.startswith(OPEN):
            person = auth.who(request)
            if person is None:
                metrics.refused.inc()
                hint = (
                    "run `tallystream console link` and open the link that it prints"
                    if auth.kind == "token"
                    else "open the console through the proxy that logs you in"
                )
                return error_page(request, 401, ErrorModel(code="login", message="nobody is logged in", hint=hint))
            request[PERSON] = person
        return await handler(request)

    return pass_through  # type: ignore[return-value]  # aiohttp's middleware takes the handler, too


def _http_error(exc: web.HTTPException) -> ErrorModel:
    return ErrorModel(code=exc.reason.lower().replace(" ", "_"), message=exc.reason, hint="")
