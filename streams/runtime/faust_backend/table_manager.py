"""Faust's table manager without its initial delay of one second."""

from __future__ import annotations

from faust.tables.manager import TableManager


class PromptTableManager(TableManager):
    """Starts the tables at once: Faust first sleeps for a second, which would delay every restart of a worker.

    Nothing depends on that second: the conductor subscribes only when agents have started and tables are registered
    (`wait_until_agents_started`, `wait_until_tables_registered`). Relies on `TableManager.on_start` being the sleep,
    `_update_channels` and the start of `recovery` (faust/tables/manager.py); set by Faust's setting TableManager.
    """

    async def on_start(self) -> None:
        """Register the tables and start recovery."""
        await self._update_channels()
        await self.recovery.start()
