"""Builds the console from the settings and runs it until it is told to stop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import ip_network

from tallystream.agents.pricing.book import Book
from tallystream.agents.pricing.overlay import read_overlay
from tallystream.components import harness, logs
from tallystream.console.config import AuthConfig, ConsoleConfig
from tallystream.console.models import DeploymentHealth
from tallystream.console.service import Console
from tallystream.schemas.errors import UsageError
from tallystream.settings.settings import Settings
from tallystream.streams.kafka.settings import KafkaSettings


def run(
    settings: Settings,
    kafka: KafkaSettings,
    *,
    host: str,
    port: int,
    endpoint_url: str,
    examine: Callable[[], Awaitable[DeploymentHealth]] | None,
    ops_port: int,
) -> None:
    """Run a console until SIGTERM or SIGINT.

    Raises:
        UsageError: a port is taken, or a setting of the console is not valid.

    """
    logs.configure()
    config = ConsoleConfig(
        kafka=kafka,
        topics=settings.topics(),
        place=settings.ledger_place(),
        data_dir=settings.data_dir,
        lateness=settings.lateness,
        endpoint_url=endpoint_url.rstrip("/"),
        host=host,
        port=port,
        auth=auth_config(settings),
        openai=settings.polls_openai,
        anthropic=settings.polls_anthropic,
        book=Book(read_overlay(settings.prices)) if settings.prices else None,
        examine=examine,
    )
    harness.run("console", Console, config, ops=(settings.ops_host, ops_port))


def auth_config(settings: Settings) -> AuthConfig:
    """Return who may use the console.

    Raises:
        UsageError: a network is not valid.

    """
    try:
        proxies = tuple(ip_network(one) for one in _listed(settings.console_proxies))
    except ValueError as exc:
        raise UsageError(f"TALLYSTREAM_CONSOLE_PROXIES: {exc}", "networks look like 10.0.0.0/8") from exc
    return AuthConfig(
        kind=settings.console_auth,
        session=settings.console_session,
        proxies=proxies,
        user_header=settings.console_user_header,
        groups_header=settings.console_groups_header,
        admins=frozenset(_listed(settings.console_admins)),
        hosts=frozenset(one.lower() for one in _listed(settings.console_hosts)),
    )


def _listed(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]
