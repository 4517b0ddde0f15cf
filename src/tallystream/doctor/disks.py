"""Checks that the disks have room for spools, stores and the embedded Kafka."""

from __future__ import annotations

import shutil

from tallystream.doctor.model import Check, DoctorContext, Finding

LEAST_SHARE = 0.05
LEAST_BYTES = 512 << 20


async def look(context: DoctorContext) -> list[Finding]:
    """Check the disk of each part of the data dir. Several parts on one disk give one finding."""
    found: dict[int, Finding] = {}
    for name in ("", "gateway", "workers", "kafka"):
        path = context.data_dir / name
        if not path.exists():
            continue
        usage = shutil.disk_usage(path)
        if usage.free < max(LEAST_SHARE * usage.total, min(LEAST_BYTES, usage.total / 4)):
            found.setdefault(
                path.stat().st_dev,
                Finding(
                    "disk",
                    f"the disk under {path} is nearly full: {usage.free >> 20:,} of {usage.total >> 20:,} MiB are free",
                    "free space before it is full: requests that Kafka does not acknowledge then get 503, and workers"
                    " and the embedded Kafka exit",
                ),
            )
    return list(found.values())


CHECK = Check("disk", look)
