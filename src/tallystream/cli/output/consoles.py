"""Where commands print. Components print nothing, so they do not import this."""

from __future__ import annotations

from rich.console import Console

console = Console(highlight=False)
"""For results."""
err_console = Console(stderr=True, highlight=False)
"""For progress and errors."""
