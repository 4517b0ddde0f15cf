"""The clients a fleet may consist of. Each is a folder of the same files.

- `agent.py`: what the client does, and what of it is billed;
- `records.py`: the log records that tell of it;
- `signals.py`: metrics and traces, which repeat it;
- `models.py`: what it is used with.

`genai` stands for the programs that are counted by their spans: `spans.py` has what each framework writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tallystream.simulator.agent import Agent
from tallystream.simulator.clients.claude.agent import ClaudeAgent
from tallystream.simulator.clients.codex.agent import CodexAgent
from tallystream.simulator.clients.gemini.agent import GeminiAgent
from tallystream.simulator.clients.genai.agent import GenaiAgent
from tallystream.simulator.jsonwire import RustJson, ScriptJson
from tallystream.simulator.model import FleetClient, Signal
from tallystream.simulator.options import Encoding
from tallystream.simulator.protobuf import RustProtobuf, ScriptProtobuf
from tallystream.simulator.wire import Wire

__all__ = ["CLIENTS", "Client"]


class Client(NamedTuple):
    """One client, and the encodings its exporter has over HTTP."""

    agent: type[Agent]
    json: Wire
    protobuf: Wire | None
    """None: it has JSON only, whatever the fleet is told."""
    costs: Signal = "logs"
    """The signal whose records are counted."""

    def wire(self, encoding: Encoding, rank: int) -> Wire:
        """Return the encoding of the client's agent number `rank`: of mixed ones, every fourth sends JSON."""
        if self.protobuf is None or encoding == "json" or (encoding == "mixed" and rank % 4 == 3):
            return self.json
        return self.protobuf


CLIENTS: Mapping[FleetClient, Client] = {
    "codex": Client(CodexAgent, RustJson(), RustProtobuf()),
    "claude": Client(ClaudeAgent, ScriptJson(), ScriptProtobuf()),
    "gemini": Client(GeminiAgent, ScriptJson(), None),
    "genai": Client(GenaiAgent, ScriptJson(), ScriptProtobuf(), "traces"),
}
