"""toxiproxy between the processes adds latency and resets connections; it is controlled over its HTTP API.

TALLYSTREAM_TOXIPROXY names its server's executable (`go install github.com/Shopify/toxiproxy/v2/cmd/server@v2.5.0`);
without one these kinds are left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.waiting import eventually

from tallystream.streams.process import tcp_ports
from tallystream.streams.process.children import bound_argv


def executable() -> str | None:
    """Return the server's path, None when there is none."""
    return os.environ.get("TALLYSTREAM_TOXIPROXY") or shutil.which("toxiproxy-server")


class Toxiproxy:
    """Runs the server. `proxy` adds a proxy for a port; `poison` adds a toxic, and `cure` removes all."""

    def __init__(self, log: Path) -> None:
        self._api = tcp_ports.pick()
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        path = executable()
        assert path is not None
        argv = bound_argv([path, "-host", "127.0.0.1", "-port", str(self._api)])
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)
        eventually(lambda: self._call("GET", "/version") is not None, "toxiproxy answers")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def proxy(self, name: str, listen: int, upstream: int) -> None:
        """Forward a port."""
        document = {"name": name, "listen": f"127.0.0.1:{listen}", "upstream": f"127.0.0.1:{upstream}"}
        assert self._call("POST", "/proxies", document) is not None

    def poison(self, proxy: str, toxic: str, stream: str, **attributes: int) -> None:
        """Add a toxic: `latency` (latency, jitter in ms), `reset_peer` (timeout in ms), ..."""
        document = {"name": f"{toxic}-{stream}", "type": toxic, "stream": stream, "attributes": attributes}
        assert self._call("POST", f"/proxies/{proxy}/toxics", document) is not None

    def cure(self) -> None:
        """Remove all toxics."""
        assert self._call("POST", "/reset") is not None

    def _call(self, method: str, path: str, document: dict[str, Any] | None = None) -> bytes | None:
        body = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self._api}{path}", body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                return bytes(response.read())
        except (urllib.error.URLError, OSError):
            return None
