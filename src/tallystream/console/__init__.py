"""The console: pages and an API over the ledger, and changes to connections and dead letters."""
