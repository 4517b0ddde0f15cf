"""The command line's fixtures, for the ledger's tests."""

from __future__ import annotations

from tests.integration.cli.conftest import cli, topics

__all__ = ["cli", "topics"]
