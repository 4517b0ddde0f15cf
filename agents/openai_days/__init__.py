"""What OpenAI says a day was billed and used, per day, model and project: topic `openai.days` out of `openai.records`.

    newest record of each bucket --> rows of its day, model, project --> BilledDay, when it says something new

rows   what the records of one day say: pure
days   the newest records by day, the rows published, and the versions of what is to be published: pure
agent  both topics read from their beginnings, what changed published

Nothing is counted here, and any number of agents may run at once: docs/adr/0006-openai-days-is-a-view.md.
"""

from tallystream.agents.openai_days.agent import OpenAIDays
from tallystream.agents.openai_days.days import Days

__all__ = ["Days", "OpenAIDays"]
