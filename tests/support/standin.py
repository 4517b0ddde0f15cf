"""A small real process that the supervisor can run: `python -m tests.support.standin NAME STATE_DIR OPS_PORT`.

It writes what happens to it to STATE_DIR/events. Files in STATE_DIR steer it: NAME.red (/healthz fails), NAME.deaf
(/healthz does not answer), NAME.stubborn (SIGTERM is ignored), NAME.refuses (it exits 2 as our command line does).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import FrameType


def main() -> None:
    name, state, port = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])

    def event(what: str) -> None:
        with (state / "events").open("a") as file:
            file.write(f"{name} {what}\n")

    def terminate(_signal: int, _frame: FrameType | None) -> None:
        if (state / f"{name}.stubborn").exists():
            event("ignored")
            return
        event("stopped")
        sys.exit(0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            while (state / f"{name}.deaf").exists():
                time.sleep(0.01)
            red = (state / f"{name}.red").exists()
            verdict = {"ok": not red, "why": "told to be red" if red else ""}
            report = {"component": name, "version": "0", "pid": os.getpid(), "started_at": "2026-11-21T12:00:00Z"}
            report |= {"healthy": verdict, "ready": verdict, "detail": None}
            self.send_response(503 if red and self.path != "/status" else 200)
            self.end_headers()
            self.wfile.write(json.dumps(report if self.path == "/status" else verdict).encode())

        def log_message(self, *_: object) -> None:
            pass

    signal.signal(signal.SIGTERM, terminate)
    event("started")
    if (state / f"{name}.refuses").exists():
        sys.stderr.write("error: port 1 is taken\n  choose another\n")
        sys.exit(2)
    with HTTPServer(("127.0.0.1", port), Handler) as server:
        server.serve_forever(poll_interval=0.02)


if __name__ == "__main__":
    main()
