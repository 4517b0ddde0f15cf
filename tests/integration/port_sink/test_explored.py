"""What `tallystream openai explore` prints, run as it is printed: blueprint, mapping and resource come to use."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.support.port_rig import SESSION, SRC, Rig, make_row, rig
from tests.support.waiting import PATIENCE

from tallystream.streams.kafka.settings import KafkaSettings

pytestmark = pytest.mark.kafka
PASTED = """
resources:
  - kind: /models/{model}
    selector:
      query: 'true'
      query_params:
        expand: all
    port:
      entity:
        mappings:
          identifier: .id
          blueprint: '"one_model"'
  - kind: /nothing
    selector:
      query: 'true'
      method: DELETE
    port:
      entity:
        mappings:
          identifier: .id
          blueprint: '"one_model"'
"""
HOUR = "2026-11-21T13:00:00Z"


async def shell(one: Rig, tmp_path: Path, script: str, **environment: str) -> str:
    """Run a script as a user's terminal does; return its stdout."""
    commands = tmp_path / "bin"
    commands.mkdir(exist_ok=True)
    command = commands / "tallystream"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m tallystream "$@"\n')
    command.chmod(0o755)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TALLYSTREAM_")}
    done = await asyncio.to_thread(
        subprocess.run,
        ["sh", "-e", "-c", script],
        capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=tmp_path,
        env={
            **kept,
            "PATH": f"{commands}:{os.environ['PATH']}",
            "PYTHONPATH": str(SRC),
            "TALLYSTREAM_KAFKA": one.kafka.bootstrap,
            "TALLYSTREAM_PREFIX": one.topics.prefix,
            "TALLYSTREAM_PARTITIONS": str(one.topics.partitions),
            "TALLYSTREAM_DATA_DIR": str(tmp_path / "data"),
            "TALLYSTREAM_OPENAI_BASE_URL": f"{one.sandbox.url}/openai/v1",
            "TALLYSTREAM_OPENAI_API_TOKEN": "sk-sandbox-explored",
            "TALLYSTREAM_PORT_BASE_URL": f"{one.sandbox.url}/port",
            **environment,
        },
    )  # fmt: skip
    assert done.returncode == 0, f"{script}\nexited {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return str(done.stdout)


def plain(one: Rig) -> list[str]:
    """Return models whose names need no quoting."""
    return sorted(name for name in one.sandbox.source.models() if name.replace("-", "").isalnum())


def commands(said: str) -> list[str]:
    """Return the printed lines that are to be run."""
    lines = said.splitlines()
    return lines[next(number for number, line in enumerate(lines) if line.startswith("export ")) :]


async def test_printed_commands_work_verbatim_and_extend_existing_settings(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    async with rig(kafka, prefix) as one:
        one_name, other, pasted = plain(one)[:3]
        credentials = {"TALLYSTREAM_PORT_CLIENT_ID": "client", "TALLYSTREAM_PORT_CLIENT_SECRET": "a-secret"}
        await one.rows(row := make_row(random.Random(1), "s1", HOUR, 0))
        explore = f"tallystream openai explore /models/{one_name} --data '[.]' --blueprint one_model"
        first = commands(await shell(one, tmp_path, explore))
        assert any(line == "export TALLYSTREAM_PORT_CLIENT_SECRET=YOUR_PORT_CLIENT_SECRET" for line in first)
        assert not any("OPENAI_API_TOKEN" in line for line in first), "the key is set: a placeholder would replace it"
        assert first[-1].startswith("tallystream up")

        # a second endpoint beside the first, in the same terminal
        second = f"tallystream openai explore /models/{other} --data '[.]' --blueprint other_model --out second"
        both = commands(await shell(one, tmp_path, "\n".join([*first[:-2], second])))
        assert not any("CLIENT" in line for line in both)
        poll = f"tallystream poller --once --resource /models/{one_name} --resource /models/{other}"
        await shell(one, tmp_path, "\n".join([*first[:-1], *both[:-1], poll, "tallystream sink --once"]))
        assert set(one.entities("one_model")) == {one_name}
        assert set(one.entities("other_model")) == {other}
        assert set(one.entities(SESSION)) == {f"{row['connection_id']}:s1"}, "the default mapping is still in use"
        assert not await one.letters()

        shown = await shell(
            one, tmp_path, "\n".join([*first[:-2], *both[:-2], "tallystream port mapping show --merged"])
        )
        kinds = {resource["kind"] for resource in yaml.safe_load(shown)["resources"]}
        assert {f"/models/{one_name}", f"/models/{other}", "session", "openai-model"} <= kinds
        assert "session-hour" not in kinds

        # a mapping for Ocean's custom integration brings its own endpoint, without a resource file
        (tmp_path / "pasted.yaml").write_text(PASTED.format(model=pasted))
        mapping = {"TALLYSTREAM_PORT_MAPPING": f"{tmp_path / 'pasted.yaml'}", **credentials}
        poll = f"tallystream poller --once --resource /models/{pasted} 2>&1; tallystream sink --once"
        said = await shell(one, tmp_path, poll, **mapping)
        assert set(one.entities("one_model")) == {one_name, pasted}
        assert "/nothing cannot be polled by its mapping: selector.method is DELETE" in said
        answer = one.sandbox.source.models()[0]
        sample = tmp_path / "sample.json"
        sample.write_text(json.dumps({"id": pasted, "object": "model", "created": 1, "owned_by": answer}))
        test = f"tallystream port mapping test pasted.yaml --kind /models/{pasted} --input {sample} --json"
        tried = json.loads(await shell(one, tmp_path, test))
        assert [entity["identifier"] for entity in tried["entities"]] == [pasted]
