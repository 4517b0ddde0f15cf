"""The memory that bodies of many shapes need.

Measured in a separate process as the growth of its peak resident memory, from the compressed body to the messages for
Kafka. Bytes of input are compared with bytes of memory, never with seconds. docs/threat-model.md states the bounds.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from typing import Any

import pytest
from tests.support.hostile_bodies import MIB, SHAPES

from tallystream.schemas.otlp import Encoding

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(900)]

RATIO = 8
"""Maximum memory of a body, as a multiple of its decompressed size."""
FLOOR = 24 * MIB
"""Additional memory for any body: buffers for decompression, small bodies that are parsed whole, Python itself."""

MEASURE = """
import gzip, json, resource, sys
from tallystream.schemas.errors import InvalidBodyError
from tallystream.schemas.otlp import LIMITS, Encoding
from tallystream.streams.gateway.decompress import decompress
from tallystream.streams.gateway.errors import RequestRefusedError
from tallystream.streams.gateway.ingest import Messages, decode, digest_of
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.service.clock import SystemClock

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

encoding = Encoding(sys.argv[1])
packed = sys.stdin.buffer.read()
messages = Messages(Topics("t"), lambda user: "u_0", SystemClock())
# what is made once, whatever comes first
decode(b"" if encoding is Encoding.PROTOBUF else b"{}", encoding, "logs")
with open("/proc/self/clear_refs", "w") as clear:
    clear.write("5")
before = peak()
size, outcome, events, letters = 0, "taken", 0, 0
try:
    plain = decompress(packed, "gzip", 64 << 20)
    size = len(plain)
    logs = decode(plain, encoding, "logs").logs
    made = messages.usage(logs.packs, "c-1") + messages.rejected(logs.rejected, digest_of(packed), "c-1")
    events, letters = sum(len(pack.events) for pack in logs.packs), len(logs.rejected)
except InvalidBodyError as exc:
    outcome = type(exc).__name__
except RequestRefusedError as exc:
    outcome = str(exc.status)
print(json.dumps({"grew": peak() - before, "size": size, "outcome": outcome, "events": events, "letters": letters}))
"""


@pytest.mark.parametrize("shape", list(SHAPES))
def test_memory_of_a_body_is_a_bounded_multiple_of_its_size(shape: str) -> None:
    encoding, build = SHAPES[shape]
    plain = build()
    measured = measure(encoding, gzip.compress(plain, 1))
    # a body that is refused during decompression has no decompressed size
    assert measured["grew"] <= RATIO * len(plain) + FLOOR, measured
    assert measured["letters"] <= 1000
    if shape.startswith(("what Codex", "nothing but")):
        assert measured["outcome"] == "taken"
        assert measured["events"] == (1500 if "Codex" in shape else 16_000 if "each" in shape else 20_000)


def measure(encoding: Encoding, packed: bytes) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, encoding.value], input=packed, capture_output=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_memory_measurement_detects_amplification() -> None:
    """A body of which twelve copies are kept must be measured as such."""
    plain = b"x" * (4 * MIB)
    script = MEASURE.replace(
        "    size = len(plain)\n", "    size = len(plain); kept = [plain + b'x' for _ in range(20)]\n"
    )
    assert script != MEASURE
    done = subprocess.run(
        [sys.executable, "-c", script, "application/json"], input=gzip.compress(plain), capture_output=True, check=True
    )
    assert json.loads(done.stdout)["grew"] > RATIO * len(plain) + FLOOR
