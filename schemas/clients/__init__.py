"""Clients: what each coding agent sends, and how its log records become UsageEvents."""

from tallystream.schemas.clients.logs import LogsResult, Pack, Rejected, normalise_logs
from tallystream.schemas.clients.registry import NORMALISERS

__all__ = ["NORMALISERS", "LogsResult", "Pack", "Rejected", "normalise_logs"]
