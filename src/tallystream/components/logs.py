"""Logs of the long-running components: one line an event, JSON unless a person is watching."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LIBRARIES = {
    # The gateway and the worker say themselves, once, when Kafka goes away and comes back.
    "aiokafka": logging.CRITICAL,
    "asyncio": logging.ERROR,
    "faust": logging.WARNING,
    "mode": logging.WARNING,
}


_begun = False
"""Whether this process is a component: then its errors are log lines too."""


def configure() -> None:
    """Send structlog's and the libraries' logs to stderr; call it once, first thing in a component."""
    global _begun
    _begun = True
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if sys.stderr.isatty():
        console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        renderer: list[Processor] = [_legible, console]
    else:
        # Never the frames' local variables, which both renderers would show by default: they may be secrets.
        frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        renderer = [structlog.processors.ExceptionRenderer(frames), structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    handler.addFilter(_without_steps_of_services)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name, level in LIBRARIES.items():
        logging.getLogger(name).setLevel(level)


def failed(code: str, message: str, hint: str, defect: Exception | None = None) -> bool:
    """Log the error that a component ends with, in one line like the rest, with the traceback of a defect of ours.

    Returns False where people read, or no component has begun: then nothing is logged.
    """
    if not _begun or sys.stderr.isatty():
        return False
    structlog.get_logger().error("failed", code=code, error=message, hint=hint, exc_info=defect)
    return True


def _without_steps_of_services(record: logging.LogRecord) -> bool:
    """Leave out what mode, Faust's library of services, says of each step of a service.

    It logs by the name of the module that the service's class is defined in, which is also ours; our own events come
    by structlog, as mappings.
    """
    ours = record.name == "tallystream" or record.name.startswith("tallystream.")
    return not ours or record.levelno >= logging.WARNING or isinstance(record.msg, dict)


def _legible(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Write out what could steer the terminal: others' strings come to our logs, and JSON escapes them by itself."""
    return {
        name: _escaped(value) if isinstance(value, str) and name != "exception" else value
        for name, value in event.items()
    }


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
