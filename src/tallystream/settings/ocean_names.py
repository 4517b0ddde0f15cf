"""The names of Port's page for its Codex integration, accepted as settings: `OCEAN__*` variables and the TOML file.

    port.clientId = "..."             in TOML, as the page and its chart write it
    OCEAN__PORT__CLIENT_ID            in the environment, as Ocean's container takes it

Our own names win over them. docs/port.md has the table.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, TomlConfigSettingsSource

from tallystream.schemas.errors import UsageError

Convert = Callable[[str, Any], Any]


def _same(_name: str, value: Any) -> Any:
    return value


def _minutes(name: str, value: Any) -> timedelta:
    try:
        return timedelta(minutes=float(value))
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{name} is not a valid number of minutes", "120 is two hours") from None


def _must_be(wanted: str, hint: str) -> Convert:
    def check(name: str, value: Any) -> None:
        if str(value).lower() != wanted.lower():
            raise UsageError(f"{name} can only be {wanted}", hint)

    return check


NAMES: Mapping[str, tuple[tuple[str, ...], Convert]] = {
    "port.clientId": (("port_client_id",), _same),
    "port.clientSecret": (("port_client_secret",), _same),
    "port.baseUrl": (("port_base_url",), _same),
    "integration.identifier": (("port_identifier",), _same),
    "integration.type": ((), _must_be("custom", "the page's integration is a custom one")),
    "integration.config.baseUrl": (("openai_base_url",), _same),
    "integration.config.authType": ((), _must_be("bearer_token", "OpenAI takes bearer tokens only")),
    "integration.config.apiToken": (("openai_api_token",), _same),
    "integration.eventListener.type": ((), _must_be("POLLING", "the poller polls; nothing listens for Port's events")),
    "initializePortResources": (("port_initialize",), _same),
    "scheduledResyncInterval": (("openai_interval", "port_resync"), _minutes),
    "sendRawDataExamples": (("port_samples",), _same),
}
"""Each name of the page, the settings it stands for (none: it can only have the value we have), and how it is read."""
EXTRA_VARIABLES = {"OCEAN__EVENT_LISTENER__TYPE": "integration.eventListener.type"}
"""What the container calls otherwise than the chart."""


def variable(name: str) -> str:
    """Return the environment variable of a name: "port.clientId" -> "OCEAN__PORT__CLIENT_ID"."""
    parts = ("".join(f"_{char}" if char.isupper() else char for char in part).upper() for part in name.split("."))
    return "OCEAN__" + "__".join(parts)


class PageNames(PydanticBaseSettingsSource):
    """Settings out of the page's names: the environment first, then the file (None: there is none)."""

    def __init__(self, settings_cls: type[BaseSettings], environment: Mapping[str, str], file: Path | None) -> None:
        super().__init__(settings_cls)
        self._environment = environment
        self._file = file

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - pydantic's
        """Return nothing: names are not looked up one by one."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the settings.

        Raises:
            UsageError: a name has a value that we cannot carry out.

        """
        found: dict[str, Any] = {}
        document = _read(self._file)
        for name, value in (*_in_file(document), *self._in_environment()):
            fields, convert = NAMES[name]
            converted = convert(name, value)
            found |= dict.fromkeys(fields, converted)
        return found

    def _in_environment(self) -> Iterator[tuple[str, str]]:
        variables = {variable(name): name for name in NAMES} | EXTRA_VARIABLES
        for written, name in variables.items():
            if (value := self._environment.get(written)) is not None:
                yield name, value


class TomlWithout(TomlConfigSettingsSource):
    """The TOML file without the page's names, which are read by `PageNames`."""

    def __call__(self) -> dict[str, Any]:
        """Return the rest of the file."""
        heads = {name.split(".")[0] for name in NAMES}
        return {name: value for name, value in super().__call__().items() if name not in heads}


def _read(file: Path | None) -> dict[str, Any]:
    if file is None or not file.is_file():
        return {}
    return tomllib.loads(file.read_text())


def _in_file(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the page's names in a file.

    Raises:
        UsageError: there is a name below `port` or `integration` that the page does not have.

    """
    heads = {name.split(".")[0] for name in NAMES}
    for head in heads & document.keys():
        yield from _flat(head, document[head])


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if name in NAMES:
        yield name, value
    elif isinstance(value, dict):
        for inner, item in value.items():
            yield from _flat(f"{name}.{inner}", item)
    else:
        raise UsageError(f"there is no setting {name}", f"of these names there are: {', '.join(NAMES)}")
