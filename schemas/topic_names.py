"""Names of the topics without the deployment's prefix: `tallystream.usage` is USAGE with the default prefix."""

from __future__ import annotations

from typing import Final

USAGE: Final = "usage"
CALLS: Final = "calls"
SESSION_HOURS: Final = "cost.session-hours"
HOURS: Final = "cost.hours"
WITNESS: Final = "usage.witness"
SESSION_LINKS: Final = "session.links"
CONNECTIONS: Final = "connections"
ACTIVITY: Final = "activity"
DEADLETTERS: Final = "deadletters"
OPENAI_RECORDS: Final = "openai.records"
OPENAI_DAYS: Final = "openai.days"
POLLER_CONTROL: Final = "openai.control"
PORT_SENT: Final = "port.sent"
PORT_CONTROL: Final = "port.control"
ACCOUNTS: Final = "accounts"
RECONCILIATION_DAYS: Final = "reconciliation.days"
CONSOLE_AUDIT: Final = "console.audit"
