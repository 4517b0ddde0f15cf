"""The Port sink: rows and records become entities in Port's catalogue, each at its newest version.

documents    the input of mappings, by kind, from the local copy of the topics (streams.kafka.global_table)
mapping      Port's YAML with JQ, with repairs of common mistakes; entities and their identifiers
blueprints   ours and those of Port's page; sync: create, compare, apply
catalogue    what else is put into Port on request: aggregation properties, a dashboard
pipeline     backlog -> transform -> send_queue -> sender: documents that changed are mapped, compared with what Port
             has, and sent in bulk; resync: everything is compared now and then, and the retention rule
state        topic port.sent. sent: what Port has, and what may be under way; in_doubt: what a paused or killed sink may
             have written is written again; reset: forget what was sent, on request
writer       the active sink of the group (streams.leader_election)
dead_letters records that could not be mapped, and entities that Port refuses
result       the summary that `sink --once` reports
port         Port's API: token, rate limit, requests
service      the sink: always follows the topics, and writes while it is the active sink

Why it holds: docs/adr/0005-port-sink-state.md.
"""

from tallystream.agents.port_sink.config import SinkConfig
from tallystream.agents.port_sink.result import SinkResult
from tallystream.agents.port_sink.service import Sink

__all__ = ["Sink", "SinkConfig", "SinkResult"]
