"""Pseudonyms: a user's name is replaced by a keyed hash in everything we write."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from tallystream.schemas.errors import UnfitError

KEY_BYTES = 32


def pseudonyms(key: bytes) -> Callable[[str], str]:
    """Return the function from names to `u_` and 16 hex digits.

    Args:
        key: any length above 0; of a key of 64 bytes or more its hash is used.

    """
    short = key if len(key) <= hashlib.blake2b.MAX_KEY_SIZE else hashlib.blake2b(key).digest()

    @lru_cache(maxsize=16_384)
    def pseudonym(name: str) -> str:
        return "u_" + hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8, key=short).hexdigest()

    return pseudonym


def own_key(path: Path) -> bytes:
    """Return this machine's key at `path` (mode 0600); creates it the first time.

    Safe for several processes at once: the complete file is hard-linked into place, and the first process wins.

    Raises:
        UnfitError: it cannot be created or read, or has the wrong size.

    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(fd, "w") as file:
                    file.write(secrets.token_hex(KEY_BYTES))
                    file.flush()
                    os.fsync(file.fileno())
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, path)
            finally:
                temporary.unlink()
        key = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as exc:
        raise UnfitError(
            f"the key for user names at {path} cannot be used: {type(exc).__name__}",
            "set TALLYSTREAM_USER_KEY, or restore the file: another key would give every user another pseudonym",
        ) from exc
    if len(key) != KEY_BYTES:
        raise UnfitError(
            f"the key for user names at {path} has {len(key)} bytes instead of {KEY_BYTES}", "restore the file"
        )
    return key
