"""The engine's host in memory: a broker, workers and a group whose every step the caller decides.

It ships with the product, for tests of folds and of the engine: no process, socket or clock of the machine is involved,
so an interleaving that a cluster meets once in a thousand kills can be made at will, in a millisecond.
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
