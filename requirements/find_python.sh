#!/usr/bin/env bash
# Print the path of the Python to make an environment with: the first suitable one on the PATH, or another one there that
# is clearly faster.
#
# A Python that was built without profile-guided optimisation, which is what pyenv does unless it is told otherwise, takes
# 1.2 to 1.5 times the CPU time for the same code. How a Python was built cannot be read from it reliably (Debian's says
# nothing of it), so each is timed with a short loop.
set -euo pipefail

read -r -d '' PROBE <<'PYTHON' || true
import sys, sysconfig, time
if not (3, 11) <= sys.version_info < (3, 14):
    sys.exit(1)
import ensurepip, os, venv

class Box:
    def __init__(self, value):
        self.values = {"value": value}
    def get(self, name):
        return self.values.get(name)

def loop():
    total = 0
    for number in range(20_000):
        value = Box(number).get("value")
        if isinstance(value, int):
            total += len(str(value).strip()) + sum(len(word) for word in ("a", "b"))
    return total

times = []
for _ in range(7):
    began = time.process_time()
    loop()
    times.append(time.process_time() - began)
# a fast one is of no use for the compiled form without its headers
headers = os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
print(int(1e6 * min(times)), int(headers), os.path.realpath(sys.executable))
PYTHON

first="" first_time=0 best="" best_time=0 seen=" "
while read -r candidate; do
    read -r took headers path < <("$candidate" -c "$PROBE" 2>/dev/null) || continue
    case "$seen" in *" $path "*) continue ;; esac
    seen+="$path "
    if [ -z "$first" ]; then first=$path first_time=$took best=$path best_time=$took; fi
    if [ "$headers" = 1 ] && [ "$took" -lt "$best_time" ]; then best=$path best_time=$took; fi
done < <(type -ap python3 python3.13 python3.12 python3.11 python)
[ -n "$first" ] || exit 1
if [ $((best_time * 5)) -lt $((first_time * 4)) ]; then
    echo "$best instead of $first, which takes $((first_time * 100 / best_time))% of its time for the same code" >&2
    first=$best
fi
echo "$first"
