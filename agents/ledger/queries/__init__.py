"""What is read out of the ledger: the cost tables, free SQL, files for analysts, and what the console shows."""
