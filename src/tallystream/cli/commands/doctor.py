"""`tallystream doctor`: reports what is wrong, and what to do."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from tallystream.cli.options import DataDir, GatewayOps, JsonOption, KafkaOption, cluster, emit_json, settings_from
from tallystream.cli.output.consoles import console
from tallystream.cli.output.text import visible
from tallystream.schemas.errors import UnreachableError


def doctor(
    watch: Annotated[
        float,
        typer.Option(
            "--watch", min=2, max=60, help="Seconds between two measurements of what changes, such as the lag."
        ),
    ] = 3.0,
    gateway_ops: GatewayOps = None,
    json: JsonOption = False,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
) -> None:
    """Report what is wrong and what to do about it. Changes nothing.

    Exits with 0 if all is well, 1 if not, and 3 if nothing runs here and no cluster is named.
    """
    from tallystream.cli.options import read_run
    from tallystream.cli.output.progress import run
    from tallystream.doctor.examination import examine
    from tallystream.doctor.model import DoctorContext

    settings = settings_from(data_dir, kafka)
    reach = cluster(settings)
    try:
        running = read_run(settings.data_dir)
    except UnreachableError:
        running = None
    if running is not None and settings.kafka is not None and running.kafka != settings.kafka:
        running = None  # what runs here uses another cluster
    context = DoctorContext(
        kafka=reach,
        topics=settings.topics(),
        lateness=settings.lateness,
        data_dir=settings.data_dir,
        run=running,
        gateways=tuple(gateway_ops or ()),
        watch=watch,
    )
    done = run(examine(context))
    if json:
        emit_json(
            {
                "ok": not done.findings,
                "findings": [{"check": one.check, "finding": one.what, "next": one.step} for one in done.findings],
                "checks": done.made,
                "left_out": done.left_out,
                "sections": {one.title: dict(one.lines) for one in done.sections},
            }
        )
    else:
        for section in done.sections:
            console.print(Text(section.title, style="bold"))
            width = max(len(name) for name, _ in section.lines)
            for name, text in section.lines:
                console.print(Text(f"  {visible(name):{width}}  {visible(text)}"), soft_wrap=True)
            console.print()
        for one in done.findings:
            console.print(Text.assemble((f"{one.check}: ", "bold red"), visible(one.what)), soft_wrap=True)
            console.print(Text(f"  {visible(one.step)}", style="dim"), soft_wrap=True)
        if not done.findings:
            console.print(f"All is well: {', '.join(done.made)}.")
        elif done.left_out:
            console.print(f"Not checked, because Kafka does not answer: {', '.join(done.left_out)}.", style="dim")
    if done.findings:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add `doctor`."""
    app.command("doctor")(doctor)
