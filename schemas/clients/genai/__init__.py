"""Agents whose cost is in their GenAI spans (docs/agents.md): spans become sightings, and sightings become calls.

    spellings   producers' names for attributes
    read        a traces request -> sightings
    counts      token counts in one convention
    texts       counts that are only in a text
    tree, join  which sightings are of one call
    calls       one call -> one UsageEvent

Source: the GenAI semantic conventions of OpenTelemetry, and recorded telemetry of real clients.
"""

from tallystream.schemas.clients.genai.calls import Call, normalise
from tallystream.schemas.clients.genai.read import SightingPack, SpansResult, read_sightings
from tallystream.schemas.clients.genai.sighting import Sighting

__all__ = ["Call", "Sighting", "SightingPack", "SpansResult", "normalise", "read_sightings"]
