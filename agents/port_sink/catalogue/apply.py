"""Compares our catalogue with Port's, and applies it: blueprints, aggregation properties, scorecard, dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tallystream.agents.port_sink.blueprints import Blueprint, sync
from tallystream.agents.port_sink.blueprints.sync import BlueprintDifference
from tallystream.agents.port_sink.catalogue import (
    PAGE,
    SCORED,
    aggregations,
    dashboard,
    pages,
    scorecard,
    scorecards,
)
from tallystream.agents.port_sink.port import api
from tallystream.agents.port_sink.port.client import PortClient


@dataclass(frozen=True)
class CataloguePlan:
    """Our catalogue as far as it fits this account, what Port has of it, and the differences."""

    ours: Mapping[str, Blueprint]
    others: Mapping[str, Blueprint]
    """Parts of blueprints that are not ours."""
    theirs: Mapping[str, Blueprint]
    page: pages.Page
    their_page: pages.Page | None
    scorecard: scorecards.Scorecard
    their_scorecard: scorecards.Scorecard | None
    left_out: tuple[str, ...]
    """Blueprints that the account does not have; nothing is said of them in Port."""

    @property
    def differences(self) -> list[BlueprintDifference]:
        """The changes that applying the plan makes."""
        return [
            *sync.differences(self.ours, self.theirs),
            *sync.differences(self.others, self.theirs),
            *scorecards.differences(self.scorecard, self.their_scorecard),
            *pages.differences(self.page, self.their_page),
        ]


async def plan(client: PortClient, ours: Mapping[str, Blueprint], *, ownership: bool) -> CataloguePlan:
    """Return what is to be done; without `ownership`, nothing is said of teams, users and services.

    Raises:
        PortError: Port does not say.

    """
    others = aggregations() if ownership else {}
    theirs = await sync.fetch(client, [*ours, *others])
    there = {name: one for name, one in others.items() if name in theirs}
    fit = await sync.fitting(client, ours)
    known = {*ours, *there} if ownership else ours.keys()
    page = pages.fitting(dashboard(), known)
    left_out = tuple(name for name in others if name not in theirs)
    mine = scorecard()
    their_scorecard = await api.scorecard(client, SCORED, mine["identifier"])
    return CataloguePlan(fit, there, theirs, page, await api.page(client, PAGE), mine, their_scorecard, left_out)


async def apply(client: PortClient, todo: CataloguePlan) -> None:
    """Apply a plan: blueprints first, because the rest refers to them.

    Raises:
        PortError: Port rejects a change; earlier changes have been made.

    """
    await sync.apply(client, todo.ours, todo.theirs)
    await sync.apply(client, todo.others, todo.theirs)
    mine = todo.scorecard
    if todo.their_scorecard is None:
        await api.create_scorecard(client, SCORED, mine)
    elif scorecards.differences(mine, todo.their_scorecard):
        changed = scorecards.merged(mine, todo.their_scorecard)
        await api.put_scorecard(client, SCORED, mine["identifier"], changed)
    if not pages.differences(todo.page, todo.their_page):
        return
    if todo.their_page is None:
        await api.create_page(client, todo.page)
    else:
        await api.patch_page(client, PAGE, pages.merged(todo.page, todo.their_page))
