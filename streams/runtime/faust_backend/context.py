"""State shared by app, consumer, producer and table of one worker; each of them reaches it through the app."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.runtime.crash import FailFast
from tallystream.streams.runtime.engine import Engine
from tallystream.streams.runtime.membership import Membership


@dataclass
class RuntimeContext:
    """`engines` are those of the app's tables; `rebalances` counts all rebalances, including the first join."""

    kafka: KafkaSettings
    fail_fast: FailFast
    membership: Membership
    engines: list[Engine] = field(default_factory=list)
    rebalances: int = 0
    lines: dict[str, Callable[[], int]] = field(default_factory=dict)
    """For each source the number of batches that wait for its agent."""

    def must_be_member(self) -> None:
        """End the process when another worker may own our partitions; called before every write."""
        if (why := self.membership.lost()) is not None:
            self.fail_fast(f"{why}; the next process reads what it has missed")


def context_of(app: Any) -> RuntimeContext:
    """Return the context of our app, as Faust passes it to its parts."""
    return cast(RuntimeContext, app.context)
