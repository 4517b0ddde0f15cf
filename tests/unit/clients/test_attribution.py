"""Attribution is an allow-list with bounded values and without possible secrets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystream.schemas.clients.attribution import SOURCES, attribution, repository, with_user
from tallystream.schemas.clients.payer import account_hash
from tallystream.schemas.usage import ATTRIBUTION_KEYS, Attribution

VALUES = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=600) | st.just(b"")
)
NAMES = st.sampled_from([name for names in SOURCES.values() for name in names]) | st.text(max_size=20)


def test_attribution_table_covers_every_field_of_a_row() -> None:
    assert tuple(SOURCES) == ATTRIBUTION_KEYS


@pytest.mark.parametrize(("field", "name"), [(field, name) for field, names in SOURCES.items() for name in names])
def test_each_attribute_name_sets_its_field(field: str, name: str) -> None:
    given, kept = {"billing": ("Plan", "plan"), "account": ("org-1", account_hash("org-1"))}.get(field, ("value",) * 2)
    assert attribution({name: given, "service.name": "codex_exec", "other": "x"}) == {field: kept}


def test_first_attribute_with_a_value_is_used() -> None:
    assert attribution({"env": "dev", "deployment.environment": "prod"})["env"] == "prod"
    assert attribution({"env": "dev", "deployment.environment": " "})["env"] == "dev"
    assert attribution({"team": True, "team.id": "b"}) == {"team": "b"}


def test_numbers_become_text_and_blank_values_are_ignored() -> None:
    assert attribution({"cost.center": 4242, "team": "  ", "host.name": "", "branch": " main "}) == {
        "cost_center": "4242",
        "branch": "main",
    }


@given(st.dictionaries(NAMES, VALUES, max_size=12))
def test_any_resource_gives_a_valid_attribution(resource: dict[str, str | int | float | bool | bytes | None]) -> None:
    found = attribution(resource)
    Attribution.model_validate(found)
    assert all(value and len(value.encode()) <= 256 for value in found.values())
    assert attribution(resource) == found


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("acme/app", "acme/app"),
        ("app", "app"),
        ("https://github.com/acme/app.git", "github.com/acme/app"),
        ("https://me:ghp_SECRET@github.com/acme/app.git?token=SECRET#SECRET", "github.com/acme/app"),
        ("https://github.com:8443/acme/app/", "github.com:8443/acme/app"),
        ("ssh://git@github.com/acme/app.git", "github.com/acme/app"),
        ("git@github.com:acme/app.git", "github.com/acme/app"),
        ("oauth2:SECRET@gitlab.com/acme/app", "gitlab.com/acme/app"),
        ("github.com/acme/app?access_token=SECRET", "github.com/acme/app"),
        (f"https://me:{'SECRET' * 100}@github.com/acme/app", "github.com/acme/app"),
    ],
)
def test_credentials_are_removed_from_repository_urls(value: str, shown: str) -> None:
    assert repository(value) == shown
    assert attribution({"vcs.repository.url.full": value}) == {"repo": shown}


def test_attribution_page_matches_the_table() -> None:
    page = Path(__file__).parents[3] / "docs" / "attribution.md"
    rows = [re.findall(r"`([^`]+)`", line) for line in page.read_text().splitlines() if line.startswith("| `")]
    assert {field: tuple(names) for field, *names in rows} == SOURCES


def test_user_of_the_resource_takes_precedence_over_the_records() -> None:
    assert with_user({"team": "a"}, "u") == {"team": "a", "user": "u"}
    assert with_user({"team": "a", "user": "set"}, "u") == {"team": "a", "user": "set"}
    assert with_user({"team": "a"}, None) == {"team": "a"}
