"""The exact runtime: folds over Kafka topics that count each record once. The engine does not depend on Faust.

Around a rebalance, frameworks resume, seek and drop batches in an order that can lose records. So the framework is
trusted only with membership and assignment, and the state itself records what was counted.

    fold            what a fold gives: how records change states, what leaves
    host            what a host gives: writing, reading, seeking, time, a way to end
    engine          accepts a batch only where the state ends; owns the partitions
    commit, expiry  public rows, then changelog, then store; closed keys are removed
    recovery        the changelog read to its end, the source's identity checked
    standby         the changelogs of others' partitions, copied in advance
    changelog_copy  how a changelog gets into the store, for both
    late_writes     late rows of a worker that was replaced, and ours written again behind them
    gap_repair      the consumer sent back to what is missing
    changelog       what a changelog holds, and its replay (pure)
    partition, store, progress, source_check, membership, crash    the parts these share

    faust_backend   the host on real Kafka, with Faust's membership and assignment
    memory          the host on a broker in memory, whose every step a test decides
"""

from tallystream.streams.runtime.changelog import PublicRows, Version
from tallystream.streams.runtime.engine import Engine
from tallystream.streams.runtime.fold import Fold, Group, InputRecord
from tallystream.streams.runtime.host import Host
from tallystream.streams.runtime.partition import Partition
from tallystream.streams.runtime.progress import Counters, PartitionProgress, Progress

__all__ = [
    "Counters",
    "Engine",
    "Fold",
    "Group",
    "Host",
    "InputRecord",
    "Partition",
    "PartitionProgress",
    "Progress",
    "PublicRows",
    "Version",
]
