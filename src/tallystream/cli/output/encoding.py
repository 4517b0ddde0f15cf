"""Streams that are not UTF-8: what their encoding lacks is written with what it has."""

from __future__ import annotations

import codecs
import sys
import unicodedata
from io import TextIOWrapper

NAME = "tallystream.legible"


def adapt() -> None:
    """Let stdout and stderr take every text; those that are UTF-8 do already, but for lone surrogates."""
    codecs.register_error(NAME, _nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=NAME)


def _nearest(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return a replacement for characters that an encoding lacks: `...` for an ellipsis, otherwise their code."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_in_ascii(one) for one in lacking), error.end


def _in_ascii(one: str) -> str:
    plain = unicodedata.normalize("NFKD", one)
    if plain.isascii():
        return plain
    return _ALIKE.get(one) or one.encode("ascii", "backslashreplace").decode()


_ALIKE = {"–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "•": "*", "→": "->", "×": "x", "│": "|", "─": "-"}
