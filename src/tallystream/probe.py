"""A health probe for containers that have no curl: `python -m tallystream.probe URL` exits 0 on a 2xx answer."""

from __future__ import annotations

import sys
import urllib.request


def probe(url: str) -> bool:
    """Return whether `url` answers 2xx within 4 s."""
    try:
        with urllib.request.urlopen(url, timeout=4) as response:  # noqa: S310 - the operator's own URL
            status: int = response.status
    except OSError:
        return False
    return 200 <= status < 300


if __name__ == "__main__":
    sys.exit(0 if probe(sys.argv[1]) else 1)
