"""Logging of the long-running components: one line for each event, as JSON unless stderr is a terminal."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LIBRARIES = {
    # The gateway and the worker log once when Kafka becomes unavailable and when it returns.
    "aiokafka": logging.CRITICAL,
    "asyncio": logging.ERROR,
    "faust": logging.WARNING,
    "mode": logging.WARNING,
}


_begun = False
"""Whether this process is a component, whose errors are logged too."""


def configure() -> None:
    """Send structlog's and the libraries' logs to stderr. Call it once, at the start of a component."""
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
        # Without local variables of the frames, which both renderers show by default, because they may be secrets.
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
    """Log the error that ends a component in one line; for a bug of ours, with the traceback.

    Returns False without logging if stderr is a terminal or no component has started.
    """
    if not _begun or sys.stderr.isatty():
        return False
    structlog.get_logger().error("failed", code=code, error=message, hint=hint, exc_info=defect)
    return True


def _without_steps_of_services(record: logging.LogRecord) -> bool:
    """Drop the messages that mode, Faust's service library, logs for each step of a service.

    It uses the logger of the module that defines the service's class, which may be ours. Our own events are mappings,
    because they come from structlog.
    """
    ours = record.name == "tallystream" or record.name.startswith("tallystream.")
    return not ours or record.levelno >= logging.WARNING or isinstance(record.msg, dict)


def _legible(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape terminal control characters, as logs contain strings from clients. JSON escapes them by itself."""
    return {
        name: _escaped(value) if isinstance(value, str) and name != "exception" else value
        for name, value in event.items()
    }


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
