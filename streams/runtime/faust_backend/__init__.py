"""The host on real Kafka: Faust for membership and assignment, aiokafka for reading and writing.

Only this folder imports Faust.
"""

from tallystream.streams.runtime.faust_backend.app import App
from tallystream.streams.runtime.faust_backend.process import run
from tallystream.streams.runtime.faust_backend.table import FoldTable

__all__ = ["App", "FoldTable", "run"]
