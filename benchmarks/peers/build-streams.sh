#!/usr/bin/env bash
# Build the Kafka Streams program that benchmarks compare the worker with, into the folder given (Java, Maven).
set -euo pipefail
target=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source="$here/streams/src/main/java/HourlyUsage.java"
[ "$target/streams-peer-1.jar" -nt "$source" ] && [ "$target/streams-peer-1.jar" -nt "$here/streams/pom.xml" ] && exit 0
command -v mvn >/dev/null || { echo "the Kafka Streams program is built with Maven, which is not installed" >&2; exit 1; }
mkdir -p "$target"
mvn -q -B -f "$here/streams/pom.xml" "-Dbuilt=$target" package dependency:copy-dependencies "-DoutputDirectory=$target/lib" \
	>"$target/build.log" 2>&1 || { tail "$target/build.log" >&2; exit 1; }
