#!/usr/bin/env bash
# Build the OpenTelemetry Collector that benchmarks compare with, into the folder given (Go, 3 minutes).
set -euo pipefail
target=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ -x "$target/otelcol/otelcol" ] && exit 0
command -v go >/dev/null || { echo "the Collector is built with Go, which is not installed" >&2; exit 1; }
mkdir -p "$target/otelcol"
cd "$target"
GOBIN="$target" go install go.opentelemetry.io/collector/cmd/builder@v0.155.0
./builder --config "$here/collector-build.yaml" 2>"$target/build.log" || { tail "$target/build.log" >&2; exit 1; }
