"""Leader election for work that only one process may do at a time.

election  which member leads, and whether it still does
fence     checked before every write, so that a replaced leader does not write late
loop      stand by, lead when elected, and start again after an outage of Kafka
"""

from tallystream.streams.leader_election.election import Election
from tallystream.streams.leader_election.fence import Fence, NotLeaderError
from tallystream.streams.leader_election.loop import election_loop, retry_while_away

__all__ = ["Election", "Fence", "NotLeaderError", "election_loop", "retry_while_away"]
