"""Writes a fixture of the state's format as this version has it: `python -m tests.unit.upgrade.write DIR`."""

from __future__ import annotations

import json
import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.support.usage import Session, event

from tallystream.agents.pricing import Book
from tallystream.agents.session_cost import hour_state
from tallystream.agents.session_cost.parse import parse
from tallystream.schemas import keys
from tallystream.schemas.hours import HOUR_NS, hour_iso
from tallystream.streams.runtime.changelog import POSITION, WATERMARK, Position, Watermark

AT = datetime(2026, 11, 21, 14, 10, tzinfo=UTC)


def main(folder: Path) -> None:
    rng, book = random.Random(8), Book()
    states: dict[bytes, hour_state.State] = {}
    for offset in range(160):
        session = Session("codex-7f3a", f"s{offset % 4}|%", ("platform", None)[offset % 2], "acme/app")
        # One session has more events than ids are remembered, in an hour of its own.
        count = 60 if offset % 4 == 3 else 3
        events = [event(rng, AT + timedelta(seconds=rng.randrange(2400), hours=offset % 2)) for _ in range(count)]
        batch = parse(session.key, session.message(events))
        for one in batch.events:
            key = keys.join(batch.connection_id, batch.session_id) + b"|" + hour_iso(one[1] // HOUR_NS).encode()
            state = states.setdefault(key, hour_state.State(batch.client, batch.provider))
            price = book.price(batch.provider, one[2], one[3], one[1], one[5], one[6], one[7], one[8], one[9])
            hour_state.apply(state, one, price, book.hash, batch.attribution, late=False)
            state.version = offset
    rows: list[tuple[bytes, bytes | None]] = [(POSITION, Position(0).encode())]
    rows += [(key, hour_state.dump(state)) for key, state in states.items()]
    gone = min(states)
    rows.append((WATERMARK, Watermark(b"2026-11-14T15:00:00Z", 160).encode()))
    rows.append((POSITION, Position(160, 1_795_300_000_123).encode()))
    rows += [(POSITION, Position(160, 1_795_300_000_123).encode()), (gone, None)]
    rows.append((POSITION, Position(160, 1_795_300_000_123).encode()))
    expected: dict[str, Any] = {
        "position": [160, 1_795_300_000_123],
        "closed": ["2026-11-14T15:00:00Z", 160],
        "kept": sorted(key.decode() for key in states if key != gone),
        "states": {
            key.decode(): {
                "row": json.loads(hour_state.to_row(key, state)),
                "ids": [f"{ident:016x}" for ident in state.ids],
                "version": state.version,
                "newest": state.newest,
                "floor": state.floor,
            }
            for key, state in states.items()
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [[key.hex(), None if value is None else value.hex()] for key, value in rows]
    (folder / "changelog.json").write_text(json.dumps(pairs, indent=0) + "\n")
    (folder / "expected.json").write_text(json.dumps(expected, indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
