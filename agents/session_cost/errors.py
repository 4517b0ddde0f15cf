"""What can be wrong with a message of usage."""

from __future__ import annotations


class InvalidMessageError(Exception):
    """A message that cannot be counted; `detail` says why, without any of its values."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
