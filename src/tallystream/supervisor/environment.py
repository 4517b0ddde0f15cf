"""The environment of each process that `up` starts: of all secrets it gets its own only.

What a process does not have it cannot show, whoever makes it. `up` itself has all of them, for it hands them on. A TOML
file that holds secrets is the operator's, and each process reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import get_args

from pydantic import SecretStr

from tallystream.settings.ocean_names import NAMES, variable
from tallystream.settings.settings import Settings

PREFIX = "TALLYSTREAM_"
SECRETS = frozenset(
    name
    for name, field in Settings.model_fields.items()
    if SecretStr in (field.annotation, *get_args(field.annotation))
)
"""The settings that are secrets."""
_OTHERS = re.compile(r"(API_?KEY|ACCESS_KEY|PRIVATE_KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS)(_ID)?$")
"""Names of variables that hold other programs' secrets."""
OF_POSTGRESQL = frozenset({"PGPASSWORD"})

OF_KAFKA = frozenset({"kafka_password"})
BY_COMPONENT: Mapping[str, frozenset[str]] = {
    "kafka": frozenset(),
    "gateway": OF_KAFKA | {"user_key"},
    "worker": OF_KAFKA,
    "exporter": OF_KAFKA,
    "ledger": OF_KAFKA | {"ledger"},
    "console": OF_KAFKA | {"ledger"},
    "poller": OF_KAFKA
    | {"openai_api_token", "openai_admin_token", "openai_session_token", "openai_proxy", "anthropic_admin_token"},
    "sink": OF_KAFKA | {"port_client_secret", "port_proxy"},
}
"""The secrets that each subcommand needs."""


def environment_of(component: str, given: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Return a component's environment out of ours and what all of them get; `component` is its name in run.json."""
    allowed = BY_COMPONENT.get(component.rstrip("0123456789").rstrip("-"), OF_KAFKA)
    hidden = set(_variables(SECRETS - allowed))
    kept = set(_variables(allowed)) | (OF_POSTGRESQL if "ledger" in allowed else frozenset())
    return {
        name: value
        for name, value in given.items()
        if name in kept or (name not in hidden and (name.startswith(PREFIX) or not _OTHERS.search(name.upper())))
    } | dict(own)


def _variables(settings: Iterable[str]) -> Iterable[str]:
    """Yield the variables that settings can be given by."""
    wanted = set(settings)
    for name in wanted:
        yield PREFIX + name.upper()
    for name, (fields, _) in NAMES.items():
        if wanted & set(fields):
            yield variable(name)
