"""The number of examples for each property test: all in `make test`, a tenth in `make check`."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

QUICK = os.environ.get("TALLYSTREAM_TEST_PROFILE") == "quick"


def examples(count: int, **options: Any) -> settings:
    """Return Hypothesis' settings for a property that needs `count` examples to be convincing."""
    return settings(max_examples=max(5, count // 10) if QUICK else count, **options)
