"""The memory limit for all requests together."""

from __future__ import annotations

import pytest

from tallystream.streams.gateway.budget import Budget
from tallystream.streams.gateway.errors import RequestRefusedError


def test_budget_refuses_excess_bytes_and_releases_all() -> None:
    budget = Budget(100, 7)
    with budget.lease() as first:
        first.take(60)
        with budget.lease() as second, pytest.raises(RequestRefusedError) as refused:
            second.take(41)
        assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "7")
        assert budget.bytes == 60
    assert budget.bytes == 0
