"""Bodies made after public bug reports, which lie beside this checkout, are counted as they should be."""

from __future__ import annotations

import pytest
from tests.conftest import SHARED

from tallystream.schemas.clients import normalise_logs
from tallystream.schemas.errors import Reason
from tallystream.schemas.otlp import Encoding
from tallystream.schemas.usage import DISJOINT_COUNTS

BODIES = SHARED / "bugs"
WANTED = {
    "01-json-lone-surrogate/input": ("case-01", 2, 2700),
    "08-json-nonfinite/a-nan": ("case-08", 1, 1350),
    "08-json-nonfinite/b-overflow": ("case-08b", 1, 1350),
    "09-json-null-double/input": ("case-09", 1, None),
    "10-json-bom/input": ("case-10", 1, 1350),
    "13-claude-event-name/a-eventName-field": ("case-13", 1, 1350),
    "13-claude-event-name/b-full-name-attribute": ("case-13b", 1, 1350),
    "16-same-request-id/input": ("case-16", 1, 1800),
    "17-no-request-id/input": ("case-17", 2, 2700),
    "17-no-request-id/placeholder": ("case-17b", 2, 2700),
    "18-milliseconds-as-nanoseconds/input": ("case-18", 1, 1350),
}
"""Session, requests, tokens (None: the file does not say)."""


@pytest.mark.skipif(not BODIES.is_dir(), reason="there are no such bodies beside this checkout")
@pytest.mark.parametrize("name", WANTED)
def test_reported_body_is_counted(name: str) -> None:
    session, requests, tokens = WANTED[name]
    found = normalise_logs((BODIES / f"{name}.json").read_bytes(), Encoding.JSON)
    (pack,) = found.packs
    assert (pack.session_id, len(pack.events)) == (session, requests)
    if tokens is not None:
        assert sum(event[count] for event in pack.events for count in DISJOINT_COUNTS) == tokens
    wanted = [Reason.CONFLICTING_COUNTS] if name.startswith("16") else []
    assert [one.reason for one in found.rejected] == wanted
