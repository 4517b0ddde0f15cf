"""The Port sink: rows and records become entities in Port's catalogue, each at its newest version.

documents    what is mapped, by kind, out of the local copy of the topics (streams.kafka.global_table)
mapping      Port's YAML with JQ, repaired where it traps; entities and their identifiers
blueprints   ours and those of Port's page; sync: create, compare, apply
pipeline     backlog -> transform -> send_queue -> sender: documents that changed are mapped, compared with what Port
             has, and sent in bulk; resync: everything is compared now and then, and the retention rule
state        topic port.sent. sent: what Port has, and what may be under way; in_doubt: what a paused or killed sink may
             have written is written again; reset: forget what was sent, on request
writer       one sink writes at a time (streams.leader_election), from the moment it may
dead_letters records that could not be mapped, and entities that Port refuses
result       what a sink has done: what `sink --once` reports
port         Port's API: token, rate limit, requests
service      the sink: follows the topics always, writes while it is the active one

Why it holds: docs/adr/0005-port-sink-state.md.
"""

from tallystream.agents.port_sink.config import SinkConfig
from tallystream.agents.port_sink.result import SinkResult
from tallystream.agents.port_sink.service import Sink

__all__ = ["Sink", "SinkConfig", "SinkResult"]
