"""Reads the ledger: cost tables, free SQL, files for analysts, and the console's pages."""
