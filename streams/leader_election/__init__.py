"""Work that one process at a time may do: join a group, wait, lead, and begin again when Kafka was away.

election  which member leads, and whether it still does
fence     asked before everything that another leader must not find written late
turns     the loop: stand by, and lead whenever it is our turn
"""

from tallystream.streams.leader_election.election import Election
from tallystream.streams.leader_election.fence import Fence, NotLeaderError
from tallystream.streams.leader_election.loop import alternate, persist

__all__ = ["Election", "Fence", "NotLeaderError", "alternate", "persist"]
