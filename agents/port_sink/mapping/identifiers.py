r"""Entity identifiers that Port accepts: letters, digits and `@_.+:\/=-`, at most 1,000 characters, not `.` or `..`.

Other characters are written as `=` and two hex digits for each byte of their UTF-8 (quoted-printable): "release notes"
becomes "release=20notes". Two texts never become one identifier: a `=` that could be mistaken for such an escape is
escaped itself, and a text that is too long keeps its beginning and ends with its SHA-256.
"""

from __future__ import annotations

import re
from hashlib import sha256

LONGEST = 1000
_KEPT_OF_LONG = 900
_SAFE = re.compile(r"[0-9A-Za-z@_+:/-][0-9A-Za-z@_.+:/-]*")
_ESCAPE = re.compile(r"=([0-9A-F]{2})")
_LOOKS_ESCAPED = re.compile(r"=(?=[0-9A-F]{2})")
_PUNCTUATION = frozenset("@_.+:\\/=-")


def encode(text: str) -> str:
    """Return the identifier of a text; most texts are returned unchanged.

    Raises:
        ValueError: the text is empty.

    """
    if _SAFE.fullmatch(text) and len(text) <= LONGEST:
        return text
    if not text:
        raise ValueError("an identifier cannot be empty")
    if text in (".", ".."):
        return text.replace(".", "=2E")
    escaped = _LOOKS_ESCAPED.sub("=3D", text)
    made = "".join(char if _allowed(char) else _hex(char) for char in escaped)
    if len(made) <= LONGEST:
        return made
    return f"{made[:_KEPT_OF_LONG]}:sha256:{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def decode(identifier: str) -> str:
    """Return the text of an identifier that was not too long: `decode(encode(text)) == text`."""
    raw = bytearray()
    position = 0
    for found in _ESCAPE.finditer(identifier):
        raw += identifier[position : found.start()].encode("utf-8", "surrogatepass") + bytes.fromhex(found[1])
        position = found.end()
    raw += identifier[position:].encode("utf-8", "surrogatepass")
    return raw.decode("utf-8", "surrogatepass")


def _allowed(char: str) -> bool:
    # str.isalpha is Unicode's category L, which is what \p{L} means in Port's pattern.
    return char in _PUNCTUATION or char.isalpha() or "0" <= char <= "9"


def _hex(char: str) -> str:
    return "".join(f"={byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
