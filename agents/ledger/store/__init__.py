"""The ledger's database: SQLite or PostgreSQL behind one Protocol, one schema, one way of writing."""
