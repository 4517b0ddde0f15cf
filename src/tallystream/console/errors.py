"""What can go wrong in the console alone."""

from __future__ import annotations

from tallystream.schemas.errors import PermanentError


class ForbiddenError(PermanentError):
    """The person may not do this."""

    code = "forbidden"


class NotFoundError(PermanentError):
    """There is no such thing."""

    code = "not_found"


class BadRequestError(PermanentError):
    """A parameter or a form field is not what it must be."""

    code = "bad_request"
