"""Errors that only the console raises."""

from __future__ import annotations

from tallystream.schemas.errors import PermanentError


class ForbiddenError(PermanentError):
    """The user may not do this."""

    code = "forbidden"


class NotFoundError(PermanentError):
    """What was asked for does not exist."""

    code = "not_found"


class BadRequestError(PermanentError):
    """A parameter or a form field is not valid."""

    code = "bad_request"
