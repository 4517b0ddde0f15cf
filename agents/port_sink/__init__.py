"""The Port sink: rows and records become entities in Port's catalogue, each at its newest version.

    documents    what is mapped, by kind, out of the local copy of the topics (streams.globaltable)
    mapping      Port's YAML with JQ, repaired where it traps; entities, identifiers
    blueprints   ours and those of Port's page; lifecycle: create, compare, apply
    backlog -> assembly -> outbox -> delivery
                 changed documents, mapped, compared with what Port has, sent in bulk
    ledger       topic port.sent: what Port has, and what may be under way
    doubts, term one sink writes (streams.leader); what a paused or killed one may have written is written again
    sweep        everything compared now and then; the retention rule
    port         Port's API: token, pace, requests

Why it holds: docs/adr/0005-port-sink-state.md.
"""

from tallystream.agents.port_sink.config import SinkConfig
from tallystream.agents.port_sink.service import Sink

__all__ = ["Sink", "SinkConfig"]
