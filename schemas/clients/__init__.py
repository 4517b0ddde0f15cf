"""Clients: what each coding agent sends, and how a log record becomes a UsageEvent."""

from tallystream.schemas.clients.logs import LogsResult, Pack, Rejected, normalise_logs
from tallystream.schemas.clients.registry import NORMALISERS

__all__ = ["NORMALISERS", "LogsResult", "Pack", "Rejected", "normalise_logs"]
