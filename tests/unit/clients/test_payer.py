"""Who pays: told by the way of logging in, never guessed; accounts only as hashes."""

from __future__ import annotations

import re

import pytest
from tests.conftest import SHARED
from tests.support.otlp_bodies import AT_NS, Attribute, Group, Record, codex_response, encode

from tallystream.schemas.clients import Pack, normalise_logs
from tallystream.schemas.clients.payer import account_hash
from tallystream.schemas.clients.renormalise import renormalise
from tallystream.schemas.otlp import Encoding

ACCOUNT = "2f0f6a4e-0a5c-4b7e-9d9a-111111111111"


def pack_of(record: Record, service: str, scope: str, **resource: Attribute) -> Pack:
    named: dict[str, Attribute] = {"service.name": service, **resource}
    body = encode([Group([record], named, scope)], Encoding.PROTOBUF)
    (pack,) = normalise_logs(body, Encoding.PROTOBUF).packs
    return pack


def codex(resource: dict[str, Attribute] | None = None, **changes: Attribute) -> dict[str, str]:
    pack = pack_of(codex_response().having(**changes), "codex_exec", "codex_otel.log_only", **(resource or {}))
    return {name: value for name, value in pack.attribution.items() if name in ("billing", "account")}


def claude(**changes: Attribute) -> Pack:
    attributes: dict[str, Attribute] = {
        "event.name": "api_request", "session.id": "s-1", "model": "claude-haiku-4-5", "input_tokens": 10,
        "output_tokens": 2, "cache_read_tokens": 0, "cache_creation_tokens": 0, "request_id": "req_011C",
    }  # fmt: skip
    record = Record(list(attributes.items()), AT_NS, AT_NS).having(**changes)
    return pack_of(record, "claude-code", "com.anthropic.claude_code.events")


@pytest.mark.parametrize(
    ("mode", "billing"), [("Chatgpt", "plan"), ("chatgpt", "plan"), ("ApiKey", "api"), ("New", None), (7, None)]
)
def test_billing_is_read_from_codex_logins(mode: Attribute, billing: str | None) -> None:
    assert codex(auth_mode=mode).get("billing") == billing
    assert codex() == {}


def test_account_is_stored_only_as_a_hash() -> None:
    kept = codex(auth_mode="Chatgpt", user__account_id=ACCOUNT)
    assert kept == {"billing": "plan", "account": account_hash(ACCOUNT)}
    assert re.fullmatch("a_[0-9a-f]{16}", kept["account"])


def test_what_the_operator_sets_takes_precedence() -> None:
    assert codex({"billing": "api", "account.id": "x"}, auth_mode="Chatgpt", user__account_id=ACCOUNT) == {
        "billing": "api", "account": account_hash("x"),
    }  # fmt: skip
    assert codex({"billing": "whatever"}, auth_mode="Chatgpt") == {"billing": "plan"}


def test_billing_of_claude_code_is_known_only_on_clouds() -> None:
    attribution = claude(organization__id=ACCOUNT, anthropic__provider="firstParty").attribution
    assert (attribution.get("billing"), attribution["account"]) == (None, account_hash(ACCOUNT))
    assert claude(anthropic__provider="bedrock").attribution["billing"] == "api"


def test_claude_models_on_aws_have_aws_prices() -> None:
    assert claude(model="us.anthropic.claude-sonnet-4-5-20250929-v1:0").provider == "aws"
    assert claude().provider == "anthropic"


def test_billing_is_read_from_gemini_logins() -> None:
    attributes: dict[str, Attribute] = {
        "event.name": "gemini_cli.api_response", "session.id": "s-1", "model": "gemini-2.5-pro",
        "input_token_count": 5, "output_token_count": 1, "auth_type": "oauth-personal",
    }  # fmt: skip
    record = Record(list(attributes.items()), AT_NS, AT_NS)
    assert pack_of(record, "gemini-cli", "gemini-cli").attribution["billing"] == "plan"


def test_dead_letter_keeps_billing_and_account() -> None:
    """So that a record that is replayed is not counted as the API's."""
    broken = codex_response().having(auth_mode="Chatgpt", user__account_id=ACCOUNT, input_token_count="-5")
    body = encode([Group([broken])], Encoding.JSON)
    (lost,) = normalise_logs(body, Encoding.JSON).rejected
    assert (lost.attribution["billing"], lost.attribution["account"]) == ("plan", account_hash(ACCOUNT))
    assert ACCOUNT not in repr(lost.record)
    pack = renormalise(lost.record | {"input_token_count": "5", "attribution": lost.attribution})
    assert pack is not None
    assert pack.attribution["billing"] == "plan"


@pytest.mark.skipif(not (SHARED / "captures").is_dir(), reason="there are no recordings beside this checkout")
def test_recorded_chatgpt_login_is_billed_as_a_plan() -> None:
    packs = [
        pack
        for path in (SHARED / "captures" / "codex-binary-chatgpt").glob("*.logs.pb")
        for pack in normalise_logs(path.read_bytes(), Encoding.PROTOBUF).packs
    ]
    assert packs
    assert {pack.attribution["billing"] for pack in packs} == {"plan"}
