"""`tallystream sandbox`: serves stand-ins for OpenAI, Anthropic and Port."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tallystream.cli.options import JsonOption, emit_json

if TYPE_CHECKING:
    from tallystream.sandbox import SandboxConfig
    from tallystream.sandbox.billed import Bill


def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 4390,
    host: Annotated[str, typer.Option(help="Address to listen on; loopback by default.")] = "127.0.0.1",
    seed: Annotated[int, typer.Option(help="Seed of the generated usage; each seed is another organisation.")] = 1,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Serve the usage of this truth file of `tallystream simulate` instead."),
    ] = None,
    bill: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Serve this bill of both providers, in the form of sandbox/billed.py."),
    ] = None,
    client_id: Annotated[
        str | None, typer.Option(help="Port client id to accept; any if not set.", show_default=False)
    ] = None,
    client_secret: Annotated[str | None, typer.Option(help="Its secret.", show_default=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve stand-ins for OpenAI (/openai/v1), Anthropic (/anthropic/v1) and Port (/port/v1) that check requests by the
    APIs' OpenAPI.

    Paths below /sandbox inject faults and show state. OpenAI and Anthropic accept keys that begin with sk-sandbox.
    """
    from tallystream.cli.output.progress import run
    from tallystream.sandbox import SandboxConfig
    from tallystream.sandbox.billed import Bill
    from tallystream.schemas.errors import UsageError

    if (client_id is None) != (client_secret is None):
        raise UsageError("a client id needs its secret", "give both --client-id and --client-secret, or neither")
    credentials = (client_id, client_secret) if client_id is not None and client_secret is not None else None
    billed = _bill(bill) if bill is not None else Bill()
    config = SandboxConfig(
        seed=seed, truth=truth, credentials=credentials, bill=billed, people=True, host=host, port=port
    )
    run(_serve(config, as_json=as_json))


def _bill(path: Path) -> Bill:
    """Read a bill.

    Raises:
        UsageError: the file cannot be read, or is not a bill.

    """
    from tallystream.sandbox.billed import Bill
    from tallystream.schemas import exact
    from tallystream.schemas.errors import InvalidBodyError, UsageError

    try:
        return Bill.model_validate(exact.loads(path.read_bytes()))
    except (OSError, ValueError, InvalidBodyError) as exc:
        raise UsageError(
            f"--bill {path}: {str(exc)[:500]}", "src/tallystream/sandbox/billed.py shows its form"
        ) from exc


async def _serve(config: SandboxConfig, *, as_json: bool) -> None:
    from tallystream.sandbox import Sandbox

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    served = Sandbox(config)
    await served.start()
    try:
        if as_json:
            names = {"openai": "openai/v1", "anthropic": "anthropic/v1", "port": "port"}
            emit_json({"url": served.url} | {name: f"{served.url}/{path}" for name, path in names.items()})
        else:
            typer.echo(
                f"sandbox at {served.url}/sandbox\n\n"
                f"export TALLYSTREAM_OPENAI_BASE_URL={served.url}/openai/v1\n"
                "export TALLYSTREAM_OPENAI_API_TOKEN=sk-sandbox\n"
                "export TALLYSTREAM_OPENAI_ADMIN_TOKEN=sk-sandbox\n"
                f"export TALLYSTREAM_ANTHROPIC_BASE_URL={served.url}/anthropic/v1\n"
                "export TALLYSTREAM_ANTHROPIC_ADMIN_TOKEN=sk-sandbox\n"
                f"export TALLYSTREAM_PORT_BASE_URL={served.url}/port\n"
                f"export TALLYSTREAM_PORT_CLIENT_ID={(config.credentials or ('sandbox',))[0]}\n"
                f"export TALLYSTREAM_PORT_CLIENT_SECRET={'THE_ONE_YOU_GAVE' if config.credentials else 'sandbox'}"
            )
        await stop.wait()
    finally:
        await served.stop()


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sandbox")(sandbox)
