"""Runs Kafka's command line tools, whose arguments may be secrets."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tallystream.streams.embedded.secret import write_private
from tallystream.streams.process.children import spawn

SECONDS = 90.0
BRIEF = "-XX:TieredStopAtLevel=1"
"""For a process that ends soon."""


@dataclass(frozen=True)
class JavaTools:
    """Java with the broker's flags, Kafka's class path, and the directory to run in."""

    command: list[str]
    class_path: str
    directory: Path

    def argv(self, *options: str, main: str) -> list[str]:
        """Return the command that runs a main class."""
        return [*self.command, *options, "-cp", self.class_path, main]

    def run(self, main: str, *arguments: str) -> str | None:
        """Run a tool. Return None if it succeeded, otherwise the last meaningful line of its output.

        Every user can read the arguments of a process, so the launcher reads these from a file.
        """
        path = self.directory / f"{main}.arguments"
        write_private(path, "\n".join(map(_quoted, (main, *arguments))))
        try:
            process = spawn(
                self.argv(BRIEF, main=f"@{path.name}"),
                cwd=self.directory,
                # The launcher may start itself again for this variable, and then the arguments are on its command line.
                env={name: value for name, value in java_environment().items() if name != "LD_LIBRARY_PATH"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            try:
                output, _ = process.communicate(timeout=SECONDS)
            except BaseException:
                process.kill()
                process.communicate()
                raise
        finally:
            path.unlink(missing_ok=True)
        return None if process.returncode == 0 else last_line(output.decode(errors="replace"))


def java_environment() -> dict[str, str]:
    """Return the JVM's environment: ours, with a locale in which it can name every file, as Python can in any."""
    return {**os.environ, "LC_ALL": "C.UTF-8"}


def last_line(text: str) -> str:
    """Return the last meaningful line: the stack frames at the end of a Java stack trace are skipped."""
    lines = [line.strip() for line in text.splitlines()]
    telling = [line for line in lines if line and not line.startswith(("at ", "..."))]
    return telling[-1][:300] if telling else "it did not print anything"


def _quoted(argument: str) -> str:
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
