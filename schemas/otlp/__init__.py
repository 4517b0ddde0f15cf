"""The server side of OTLP: decoding requests in protobuf and JSON, and encoding responses."""

from tallystream.schemas.otlp.encoding import Encoding
from tallystream.schemas.otlp.limits import LIMITS, Limits
from tallystream.schemas.otlp.logs import read_logs
from tallystream.schemas.otlp.records import Attributes, Broken, BrokenRecord, LogRecord, LogsBody, Value
from tallystream.schemas.otlp.responses import partial_success, success
from tallystream.schemas.otlp.signals import detect_signal, inspect
from tallystream.schemas.otlp.status import status

__all__ = [
    "LIMITS",
    "Attributes",
    "Broken",
    "BrokenRecord",
    "Encoding",
    "Limits",
    "LogRecord",
    "LogsBody",
    "Value",
    "detect_signal",
    "inspect",
    "partial_success",
    "read_logs",
    "status",
    "success",
]
