"""Accepts the setting names of Port's page on its Codex integration, in `OCEAN__*` variables and the TOML file.

    port.clientId = "..."             in TOML, as the page and its chart write it
    OCEAN__PORT__CLIENT_ID            in the environment, as Ocean's container takes it

Our own names take precedence. docs/port.md has the table.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, TomlConfigSettingsSource
from typing_extensions import override

from tallystream.schemas.errors import UsageError

Convert = Callable[[str, Any], Any]


def _same(_name: str, value: object) -> Any:
    return value


def _minutes(name: str, value: Any) -> timedelta:
    try:
        return timedelta(minutes=float(value))
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{name} is not a valid number of minutes", "120 is two hours") from None


def _must_be(wanted: str, hint: str) -> Convert:
    def check(name: str, value: object) -> None:
        if str(value).lower() != wanted.lower():
            raise UsageError(f"{name} must be {wanted}", hint)

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
    "integration.eventListener.type": (
        (),
        _must_be("POLLING", "the poller polls, and does not listen for Port's events"),
    ),
    "initializePortResources": (("port_initialize",), _same),
    "scheduledResyncInterval": (("openai_interval", "port_resync"), _minutes),
    "sendRawDataExamples": (("port_samples", "port_send_samples"), _same),
}
"""Each name of the page, its settings, and its parser. A name without settings must have the value that we support."""
EXTRA_VARIABLES = {"OCEAN__EVENT_LISTENER__TYPE": "integration.eventListener.type"}
"""Names that differ between the container and the chart."""
LISTENER = "OCEAN__EVENT_LISTENER"
"""The whole event listener as JSON, as Ocean's chart sets it."""


def variable(name: str) -> str:
    """Return the environment variable of a name: "port.clientId" -> "OCEAN__PORT__CLIENT_ID"."""
    parts = ("".join(f"_{char}" if char.isupper() else char for char in part).upper() for part in name.split("."))
    return "OCEAN__" + "__".join(parts)


class PageNames(PydanticBaseSettingsSource):
    """Settings given by the page's names: from the environment first, then from the file, if there is one."""

    def __init__(self, settings_cls: type[BaseSettings], environment: Mapping[str, str], file: Path | None) -> None:
        super().__init__(settings_cls)
        self._environment = environment
        self._file = file

    @override
    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return nothing, because names are not looked up one by one."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the settings.

        Raises:
            UsageError: a name has a value that we do not support.

        """
        found: dict[str, Any] = {}
        document = _read(self._file)
        for name, value in (*_in_file(document), *self._in_environment()):
            fields, convert = NAMES[name]
            converted = convert(name, value)
            found |= dict.fromkeys(fields, converted)
        return found

    def _in_environment(self) -> Iterator[tuple[str, Any]]:
        if (listener := self._environment.get(LISTENER)) is not None:
            yield from _listener(listener)
        for written, name in _variables().items():
            if (value := self._environment.get(written)) is not None:
                yield name, value


def known_variables() -> set[str]:
    """Return the variables that have an effect."""
    return set(_variables())


def _variables() -> dict[str, str]:
    return {variable(name): name for name in NAMES} | EXTRA_VARIABLES


def _listener(text: str) -> Iterator[tuple[str, Any]]:
    """Yield the names that an event listener in JSON gives: its type, and its interval in seconds.

    Raises:
        UsageError: it is not a JSON object.

    """
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise UsageError(f"{LISTENER} is not a JSON object", '{"type": "POLLING"} is what we support')
    if "type" in given:
        yield "integration.eventListener.type", given["type"]
    if "interval" in given:
        yield "scheduledResyncInterval", _in_minutes(given["interval"])


def _in_minutes(seconds: Any) -> float:
    try:
        return float(seconds) / 60
    except (TypeError, ValueError):
        raise UsageError(f"the interval in {LISTENER} is not a number of seconds", "60 is a minute") from None


class TomlWithout(TomlConfigSettingsSource):
    """The TOML file without the page's names, which `PageNames` reads."""

    @override
    def _read_file(self, file_path: Path | Traversable) -> dict[str, Any]:
        return _parsed(file_path)

    def __call__(self) -> dict[str, Any]:
        """Return the settings of the file without the page's names."""
        heads = {name.split(".")[0] for name in NAMES}
        return {name: value for name, value in super().__call__().items() if name not in heads}


def _read(file: Path | None) -> dict[str, Any]:
    if file is None or not file.is_file():
        return {}
    return _parsed(file)


def _parsed(file: Path | Traversable) -> dict[str, Any]:
    """Return a TOML file's contents. Some editors begin it with a byte order mark, which TOML does not allow."""
    return tomllib.loads(file.read_text(encoding="utf-8-sig"))


def _in_file(document: Mapping[str, object]) -> Iterator[tuple[str, Any]]:
    """Yield the page's names in a file.

    Raises:
        UsageError: a name below `port` or `integration` is not on the page.

    """
    heads = {name.split(".")[0] for name in NAMES}
    for head in heads & document.keys():
        yield from _flat(head, document[head])


def _flat(name: str, value: object) -> Iterator[tuple[str, Any]]:
    if name in NAMES:
        yield name, value
    elif isinstance(value, dict):
        for inner, item in value.items():
            yield from _flat(f"{name}.{inner}", item)
    else:
        raise UsageError(f"the setting {name} does not exist", f"use one of {', '.join(NAMES)}")
