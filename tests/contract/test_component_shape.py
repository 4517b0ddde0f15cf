"""Every component must have the shape described in CONTRIBUTING.md, "To add a component"."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import cast, get_args

import pytest

from tallystream.cli import build
from tallystream.reference import metrics
from tallystream.schemas import status
from tallystream.streams.service.component import Component

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "gateway": "tallystream.streams.gateway",
    "worker": "tallystream.agents.session_cost",
    "poller": "tallystream.streams.poller",
    "sink": "tallystream.agents.port_sink",
    "exporter": "tallystream.exporter",
    "ledger": "tallystream.agents.ledger",
    "console": "tallystream.console",
}
"""Subcommand and package. Every package with a `service.py` is a component and must be listed here."""
MODULES = ("config", "errors", "metrics", "service")
each = pytest.mark.parametrize("name", PACKAGES)


def folder(package: str) -> Path:
    below = package.removeprefix("tallystream.").replace(".", "/")
    return next(path for path in (ROOT / below, ROOT / "src" / "tallystream" / below) if path.is_dir())


def service(name: str) -> type[Component]:
    """Return the one class that a component's `service.py` defines."""
    module = importlib.import_module(f"{PACKAGES[name]}.service")
    found = [
        one
        for one in vars(module).values()
        if inspect.isclass(one) and one.__module__ == module.__name__ and not one.__name__.startswith("_")
    ]
    assert len(found) == 1, f"{module.__name__} defines one public class: {found}"
    return cast(type[Component], found[0])


def test_every_folder_with_a_service_is_checked() -> None:
    with_service = {
        path.parent
        for room in ("streams", "agents", "src/tallystream")
        for path in (ROOT / room).rglob("service.py")
        if "/src/tallystream/" not in str(path)
        or path.parts[len(ROOT.parts) + 2] not in ("streams", "agents", "schemas")
    }
    assert with_service == {folder(package) for package in PACKAGES.values()}


@each
def test_component_has_the_required_modules(name: str) -> None:
    for module in MODULES:
        found = importlib.import_module(f"{PACKAGES[name]}.{module}")
        assert found.__doc__


@each
def test_component_service_takes_config_registry_and_clock(name: str) -> None:
    made = service(name)
    parameters = list(inspect.signature(made).parameters.values())
    assert [one.name for one in parameters[:3]] == ["config", "registry", "clock"]
    assert all(one.default is not one.empty for one in parameters[3:]), "whatever else it takes can be left out"
    config = importlib.import_module(f"{PACKAGES[name]}.config")
    assert inspect.get_annotations(made.__init__)["config"] in vars(config)
    for method in ("run", "healthy", "ready", "status"):
        assert inspect.getdoc(getattr(made, method)), f"{made.__name__}.{method} is there and explained"
    assert inspect.iscoroutinefunction(made.run)


@each
def test_component_config_is_frozen(name: str) -> None:
    config = importlib.import_module(f"{PACKAGES[name]}.config")
    own = inspect.get_annotations(service(name).__init__)["config"]
    assert vars(config)[own].__dataclass_params__.frozen


@each
def test_component_errors_end_in_error(name: str) -> None:
    module = importlib.import_module(f"{PACKAGES[name]}.errors")
    errors = [one for one in vars(module).values() if _is_error(one, module.__name__)]
    assert errors


def _is_error(one: object, module: str) -> bool:
    return inspect.isclass(one) and issubclass(one, Exception) and one.__module__ == module


@each
def test_component_has_a_command_documentation_and_status(name: str) -> None:
    app = build()
    groups = {one.name for one in app.registered_groups}
    assert name in {one.name for one in app.registered_commands} | groups
    run = importlib.import_module(f"tallystream.components.{name}").run
    assert inspect.getdoc(run)
    assert list(metrics.registry_of(name).collect())
    details = get_args(get_args(status.Detail)[0])
    assert name in {detail.model_fields["component"].default for detail in details}
