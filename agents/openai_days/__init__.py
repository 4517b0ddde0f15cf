"""OpenAI's own figures per day, model and project: derives topic `openai.days` from `openai.records`.

    newest record of each bucket --> rows of its day, model, project --> BilledDay, if it has changed

rows   the figures in the records of one day: pure
days   the newest records by day, the published rows, and the versions of rows to be published: pure
agent  reads both topics from their beginnings and publishes changes

The result is a function of the records, so any number of agents may run at once:
docs/adr/0006-openai-days-is-a-view.md.
"""

from tallystream.agents.openai_days.agent import OpenAIDays
from tallystream.agents.openai_days.days import Days

__all__ = ["Days", "OpenAIDays"]
