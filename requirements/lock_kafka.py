#!/usr/bin/env python3
"""Write streams/embedded/kafka.lock.toml: every jar of the embedded Kafka with its size and SHA-256 (`make lock`)."""

from __future__ import annotations

import hashlib
import sys
import tempfile
import tomllib
from pathlib import Path

import jgo

KAFKA = "4.3.1"
ENDPOINT = f"org.apache.kafka:kafka_2.13:{KAFKA}+org.slf4j:slf4j-simple:1.7.36"
"""Kafka leaves the choice of a logger to its user: without slf4j-simple it would log nothing at all."""
LOCK = Path(__file__).resolve().parents[1] / "streams" / "embedded" / "kafka.lock.toml"


def main() -> None:
    """Resolve with jgo from an empty cache and write what was found."""
    with tempfile.TemporaryDirectory() as cache:
        environment = jgo.build(ENDPOINT, cache_dir=Path(cache))
        dependencies = tomllib.loads((environment.path / "jgo.lock.toml").read_text())["dependencies"]
        files = {path.name: path for path in environment.path.glob("*/*.jar")}
        lines = [
            "# Written by `make lock`. Each jar is verified against this before it is used.",
            f'kafka = "{KAFKA}"',
        ]
        for jar in sorted(dependencies, key=lambda d: (d["groupId"], d["artifactId"])):
            path = files.pop(f"{jar['artifactId']}-{jar['version']}.jar")
            content = path.read_bytes()
            lines += [
                "",
                "[[jars]]",
                f'coordinate = "{jar["groupId"]}:{jar["artifactId"]}:{jar["version"]}"',
                f"size = {len(content)}",
                f'sha256 = "{hashlib.sha256(content).hexdigest()}"',
            ]
        if files:
            sys.exit(f"jgo placed jars that its lock does not name: {sorted(files)}")
    LOCK.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
