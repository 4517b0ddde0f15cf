"""The exact runtime: folds over Kafka topics that count each record once, on Faust's extension points.

Faust gives the app, group membership, assignment, agents and stores. It is not trusted with offsets: around a rebalance
it resumes, seeks and drops batches in an order that loses records. So the state itself says what was counted.

    rows          what a changelog holds, and its replay (pure)
    table         FoldTable: accept a batch only where the state ends; repair finds what is missing
    commit        public rows, then changelog, then store; expiry removes closed keys
    recovery      the changelog read to its end, the source's identity checked
    overtaken     late rows of a worker that was replaced, and ours written again behind them
    producer      record batches, contiguity, acknowledgements; guard: no write by a worker that may be replaced
    consumer      positions from the state, heartbeats seen by the guard
    app, process  settings, health, start and clean stop
"""

from tallystream.streams.runtime.changelog import PublicRows, Version
from tallystream.streams.runtime.faust_backend.app import App
from tallystream.streams.runtime.faust_backend.batches import Record
from tallystream.streams.runtime.faust_backend.process import run
from tallystream.streams.runtime.faust_backend.table import FoldTable
from tallystream.streams.runtime.partition import Part
from tallystream.streams.runtime.progress import Counters, PartProgress, Progress

__all__ = ["App", "Counters", "FoldTable", "Part", "PartProgress", "Progress", "PublicRows", "Record", "Version", "run"]
