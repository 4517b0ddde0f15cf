"""The console: pages and an API over the ledger, and the few changes people make (connections, replay)."""
