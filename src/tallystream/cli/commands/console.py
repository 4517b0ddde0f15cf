"""`tallystream console [link]`: runs the console, and prints links that log in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tallystream.cli.options import DataDir, JsonOption, KafkaOption, cluster, emit_json, settings_from
from tallystream.cli.output.consoles import console

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tallystream.console.models import DeploymentHealth
    from tallystream.settings.settings import Settings
    from tallystream.streams.kafka.settings import KafkaSettings

HELP = """
Serve web pages and an API over the ledger: cost and its causes, connections, dead letters.

`up` starts the console. It listens on loopback. `tallystream console link` prints a link that logs in once. Behind a
proxy that authenticates users, set TALLYSTREAM_CONSOLE_AUTH=proxy.
"""


def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; loopback by default.")] = ("127.0.0.1"),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of the pages.")] = 4319,
    endpoint_url: Annotated[
        str,
        typer.Option(
            "--endpoint-url", envvar="TALLYSTREAM_ENDPOINT_URL", metavar="URL", help="Where clients reach the gateway."
        ),
    ] = "http://127.0.0.1:4318",
    ops_port: Annotated[
        int,
        typer.Option(
            "--ops-port", min=0, max=65535, help="Port of /healthz, /readyz and /metrics; 0 picks a free one."
        ),
    ] = 0,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
    embedded: Annotated[str | None, typer.Option("--embedded", hidden=True)] = None,
) -> None:
    """Serve the console until told to stop."""
    if context.invoked_subcommand is not None:
        return
    from tallystream.components import console as component

    settings = settings_from(data_dir, kafka)
    reach = settings.kafka_settings(embedded) if embedded else cluster(settings)
    component.run(
        settings,
        reach,
        host=host,
        port=port,
        endpoint_url=endpoint_url,
        examine=_examiner(settings, reach),
        ops_port=ops_port,
    )


def link(json: JsonOption = False, data_dir: DataDir = None) -> None:
    """Print a link that logs in to the console. It works once, within ten minutes."""
    from tallystream.cli.options import read_run
    from tallystream.console.links import URL_FILE, new_link
    from tallystream.schemas.errors import UnreachableError

    settings = settings_from(data_dir)
    try:
        base = read_run(settings.data_dir).console
    except UnreachableError:
        base = None
    if base is None:
        try:
            base = (settings.data_dir / "console" / URL_FILE).read_text().strip()
        except OSError:
            raise UnreachableError(
                f"no console runs in {settings.data_dir}", "`tallystream up` and `tallystream console` start one"
            ) from None
    url = new_link(settings.data_dir, base)
    if json:
        emit_json({"url": url})
    else:
        console.print(url, soft_wrap=True, markup=False)


def register(app: typer.Typer) -> None:
    """Add `console` and its command."""
    group = typer.Typer(help=HELP, rich_markup_mode="markdown")
    group.callback(invoke_without_command=True)(serve)
    group.command("link")(link)
    app.add_typer(group, name="console")


def _examiner(settings: Settings, kafka: KafkaSettings) -> Callable[[], Awaitable[DeploymentHealth]]:
    """Return the function that inspects the processes of this machine and runs doctor's checks."""

    async def examine() -> DeploymentHealth:
        from tallystream.console.build import stamp
        from tallystream.console.facts import facts_of
        from tallystream.console.models import ComponentHealth, DeploymentHealth, FindingModel
        from tallystream.doctor.examination import examine as look
        from tallystream.doctor.model import DoctorContext
        from tallystream.schemas.errors import UnreachableError
        from tallystream.streams.service.clock import SystemClock, utc
        from tallystream.supervisor.status import collect

        components, run = [], None
        try:
            state = await collect(settings.data_dir)
            run = state.run
            components = [
                ComponentHealth(
                    name=one.name,
                    state=one.state,
                    ready=one.ready,
                    uptime_seconds=one.uptime_seconds,
                    facts=facts_of(one.report.detail if one.report is not None else None),
                )
                for one in state.components
            ]
        except UnreachableError:
            pass  # not started by `up`, so only Kafka can be asked
        context = DoctorContext(
            kafka=kafka,
            topics=settings.topics(),
            lateness=settings.lateness,
            data_dir=settings.data_dir,
            run=run,
            gateways=(),
            watch=2.0,
        )
        done = await look(context)
        return DeploymentHealth(
            as_of=stamp(utc(SystemClock().now_ns())),
            components=components,
            findings=[FindingModel(check=one.check, finding=one.what, next_step=one.step) for one in done.findings],
            checks=done.made,
            ledger={},
        )

    return examine
