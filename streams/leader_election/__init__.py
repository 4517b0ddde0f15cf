"""Work that one process at a time may do: join a group, wait, lead, and begin again when Kafka was away.

election  which member leads, and whether it still does
fence     asked before everything that another leader must not find written late
loop      stand by, and lead whenever it is our turn; begin again when Kafka was away
"""

from tallystream.streams.leader_election.election import Election
from tallystream.streams.leader_election.fence import Fence, NotLeaderError
from tallystream.streams.leader_election.loop import election_loop, retry_while_away

__all__ = ["Election", "Fence", "NotLeaderError", "election_loop", "retry_while_away"]
