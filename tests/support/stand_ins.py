"""The sandbox as a process: stand-ins for OpenAI, Anthropic and Port."""

from __future__ import annotations

import json
import subprocess


def urls_of(process: subprocess.Popen[str]) -> dict[str, str]:
    """Return the URLs that `tallystream sandbox --json` prints once it listens."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line == "}\n":
            urls: dict[str, str] = json.loads("".join(lines))
            return urls
    raise AssertionError(f"the sandbox ended with {process.wait()}: {''.join(lines)}")
