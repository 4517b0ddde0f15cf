"""Errors of usage messages."""

from __future__ import annotations

from tallystream.schemas.errors import PermanentError


class InvalidMessageError(PermanentError):
    """A message that cannot be counted; `message` says why, without any of its values."""

    code = "invalid_message"
