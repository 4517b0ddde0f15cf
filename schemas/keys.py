"""Keys of Kafka messages: parts joined by `|`, with `%` and `|` inside a part percent-encoded.

`split(join(*parts)) == parts` for every tuple of strings (a property test holds it).
"""

from __future__ import annotations


def encode_part(part: str) -> str:
    """Return the part with `%` and `|` percent-encoded; most parts contain neither and are returned unchanged."""
    if "%" in part:
        part = part.replace("%", "%25")
    if "|" in part:
        part = part.replace("|", "%7C")
    return part


def join(*parts: str) -> bytes:
    """Join the parts to a key."""
    return "|".join(map(encode_part, parts)).encode()


def split(key: bytes) -> tuple[str, ...]:
    """Split a key into its parts.

    Raises:
        ValueError: it is not UTF-8, so `join` has not made it.

    """
    text = key.decode()
    if "%" in text:  # few do, and rows are split by the million
        return tuple(part.replace("%7C", "|").replace("%25", "%") for part in text.split("|"))
    return tuple(text.split("|"))
