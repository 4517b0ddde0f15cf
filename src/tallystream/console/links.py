"""Links that log in once. Anyone who can write DATA_DIR/console can create one, and so administer this deployment.

A link contains a random token, and the folder contains a file named after the token's hash. Logging in removes the
file, so that a link works once. Only the console that uses this folder accepts it.
"""

from __future__ import annotations

import os
import secrets
import time
from hashlib import sha256
from pathlib import Path

LIFE = 600.0
"""Seconds that a link is valid."""
URL_FILE = "url"


def new_link(data_dir: Path, base_url: str) -> str:
    """Create a link.

    Raises:
        OSError: the folder cannot be written.

    """
    folder = data_dir / "console" / "links"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    token = secrets.token_urlsafe(32)
    path = folder / sha256(token.encode()).hexdigest()
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    return f"{base_url}/login?token={token}"


def redeem(directory: Path, token: str) -> bool:
    """Redeem a link's token and return whether it was valid. `directory` is the console's."""
    folder = directory / "links"
    path = folder / sha256(token.encode(errors="surrogateescape")).hexdigest()
    now = time.time()
    try:
        made = path.stat().st_mtime
        path.unlink()  # only one of two concurrent requests succeeds
    except OSError:
        return False
    for old in folder.glob("*"):
        try:
            if now - old.stat().st_mtime > LIFE:
                old.unlink()
        except OSError:
            continue
    return now - made <= LIFE


def key(directory: Path) -> bytes:
    """Return the key that signs logins. It is generated the first time.

    Raises:
        OSError: the folder cannot be written.

    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / "key"
    try:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        found = path.read_bytes()
        if len(found) == 32:
            return found
        path.unlink()
        return key(directory)
    made = secrets.token_bytes(32)
    try:
        os.write(fd, made)
    finally:
        os.close(fd)
    return made
