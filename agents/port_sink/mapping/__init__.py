"""Mappings: Port's YAML with JQ expressions, with repairs of common mistakes, compiled once.

Modules, each building on those before it:

text       YAML, and repairs of damage from copying it from a web page
model      its shape
repairs    expressions that do not do what was intended
prelude    what expressions can use
program    one resource compiled: records in, entities and failures out
merge      several files put together
mapper     the whole, as the sink uses it
"""

from tallystream.agents.port_sink.mapping.mapper import Mapped, Mapper, default_text
from tallystream.agents.port_sink.mapping.merge import MappingSource
from tallystream.agents.port_sink.mapping.program import Failure
from tallystream.agents.port_sink.mapping.repairs import MappingRepair

__all__ = ["Failure", "Mapped", "Mapper", "MappingRepair", "MappingSource", "default_text"]
