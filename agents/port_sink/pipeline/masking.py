"""Replaces in a sample what should not lie around in a file: secrets, addresses and people's names. Its shape stays, so
that mappings can be tried on it.
"""

from __future__ import annotations

import re
from typing import Any

MASK = "***"
_SECRET_NAME = re.compile(
    r"(secret|password|passwd|authorization|cookie|credential|private_?key|api_?key|access_?key|token)$", re.IGNORECASE
)
"""Names whose texts are secrets. Counts such as `total_tokens` are numbers, and ids such as `api_key_id` are none."""
_PERSON_NAME = re.compile(
    r"^(user|user_?name|user_?email|e?mail|email_?address|first_?name|last_?name)$", re.IGNORECASE
)
_IN_TEXT = re.compile(
    r"[\w.+-]+@[\w-]+(\.[\w-]+)+"  # an address
    r"|\b(sk|sess|pk|rk|xox[abprs])-[A-Za-z0-9_*.-]{3,}"  # keys of OpenAI, Anthropic, Stripe, Slack
    r"|\bgh[opsur]_[A-Za-z0-9]{20,}|\bAKIA[0-9A-Z]{16}\b"  # GitHub, AWS
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"  # JWT
    r"|\b(Bearer|Basic)\s+\S{8,}"
    r"|(?<=://)[^/@\s:]+:[^/@\s]+(?=@)"  # user and password of a URL
)


def masked(value: object, name: str = "") -> Any:
    """Return a JSON value with what is sensitive in it replaced; `name` is the field that it stands in."""
    if isinstance(value, dict):
        return {key: masked(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [masked(item, name) for item in value]
    if not isinstance(value, str) or not value:
        return value
    if _SECRET_NAME.search(name) or _PERSON_NAME.search(name):
        return MASK
    return _IN_TEXT.sub(MASK, value)
