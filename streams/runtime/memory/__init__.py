"""The engine's host in memory: a broker, workers and a group whose every step the caller controls.

It ships with the product, for tests of folds and of the engine: it does not use processes, sockets or the machine's
clock, so an interleaving that a cluster meets once in a thousand kills can be produced at will, in a millisecond.
"""

from tallystream.streams.runtime.memory.broker import MemoryBroker, MemoryRecord
from tallystream.streams.runtime.memory.clock import ManualClock
from tallystream.streams.runtime.memory.host import MemoryHost, WorkerCrashedError
from tallystream.streams.runtime.memory.worker import MemoryGroup, MemoryWorker

__all__ = [
    "ManualClock",
    "MemoryBroker",
    "MemoryGroup",
    "MemoryHost",
    "MemoryRecord",
    "MemoryWorker",
    "WorkerCrashedError",
]
