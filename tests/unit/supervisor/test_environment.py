"""Each process under `up` gets only its own secrets."""

from __future__ import annotations

import pytest

from tallystream.supervisor.environment import BY_COMPONENT, SECRETS, environment_of

OURS = {f"TALLYSTREAM_{name.upper()}": f"secret-{name}" for name in SECRETS}
GIVEN = OURS | {
    "OCEAN__PORT__CLIENT_SECRET": "secret-port", "OCEAN__INTEGRATION__CONFIG__API_TOKEN": "secret-openai",
    "OPENAI_API_KEY": "secret", "AWS_SECRET_ACCESS_KEY": "secret", "GITHUB_TOKEN": "secret", "PGPASSWORD": "secret-pg",
    "PATH": "/bin", "TALLYSTREAM_LATENESS": "P7D", "TALLYSTREAM_OPENAI_API_TOKEN_FILE": "/run/token", "LANG": "C",
}  # fmt: skip


@pytest.mark.parametrize("component", [*BY_COMPONENT, "worker-2", "something-new"])
def test_process_gets_only_its_own_secrets(component: str) -> None:
    found = environment_of(component, GIVEN, {"NO_COLOR": "1"})
    allowed = BY_COMPONENT.get(component.partition("-")[0], frozenset({"kafka_password"}))
    secrets = {value for value in found.values() if value.startswith("secret")}
    wanted = {f"secret-{name}" for name in allowed}
    wanted |= {"secret-port"} if "port_client_secret" in allowed else set()
    wanted |= {"secret-openai"} if "openai_api_token" in allowed else set()
    wanted |= {"secret-pg"} if "ledger" in allowed else set()
    assert secrets == wanted
    for name in ("PATH", "LANG", "TALLYSTREAM_LATENESS", "TALLYSTREAM_OPENAI_API_TOKEN_FILE", "NO_COLOR"):
        assert name in found


def test_every_secret_belongs_to_a_component() -> None:
    assert frozenset[str]().union(*BY_COMPONENT.values()) == SECRETS
    assert {"kafka_password", "openai_api_token", "port_client_secret", "user_key", "ledger"} <= SECRETS
