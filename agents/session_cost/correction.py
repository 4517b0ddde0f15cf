"""Moves counted requests of a session-hour to another price book: parses the message, and applies it. Pure.

- Tokens, requests and every other count stay as they are, in sum and in their (model, tier, speed, attribution).
- A correction applies as a whole or not at all: only to exactly the buckets for which its costs were computed. New
  requests do not disturb it when they are priced by the new book, because they are in other buckets.
- Applied again, in whichever order with others, it changes nothing: its buckets are gone, and one that was computed
  before the last correction is refused even if equal buckets have come up since.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import orjson
from pydantic import ValidationError

from tallystream.agents.session_cost import counted as c
from tallystream.agents.session_cost import sums as s
from tallystream.agents.session_cost.errors import InvalidMessageError
from tallystream.agents.session_cost.hour_state import MAX_BUCKET_BYTES, BucketKey, State, open_bucket, size_of
from tallystream.schemas import keys
from tallystream.schemas.catalogue import SCHEMA_HEADER, schema_of
from tallystream.schemas.corrections import MAX_CORRECTION_BYTES, PriceCorrection, PriceMove
from tallystream.schemas.hours import hour_from_iso
from tallystream.schemas.money import to_pico
from tallystream.schemas.rows import CostBucket, SessionHourCost, Sums
from tallystream.streams.runtime.changelog import version_number

HEADER = (SCHEMA_HEADER, schema_of(PriceCorrection).header)
"""The header that distinguishes a correction from usage."""
_SUMS = frozenset(Sums.model_fields)

CHANGED = "its requests have changed since their costs were computed"
OUTDATED = "another correction has been applied since its costs were computed"
FULL = "the row has no space for buckets of another book"
IMPOSSIBLE = "its costs cannot be those of its requests"


class _Move(NamedTuple):
    """The buckets of a move, and what their sums become."""

    places: list[int]
    sums: list[int]
    to: BucketKey


def parse_correction(key: bytes | None, value: bytes | None) -> PriceCorrection:
    """Parse a correction.

    Raises:
        InvalidMessageError: it is not a valid one.

    """
    if value is None or len(value) > MAX_CORRECTION_BYTES:
        raise InvalidMessageError("the price correction is empty or too large")
    try:
        correction = PriceCorrection.model_validate_json(value)
    except ValidationError as exc:
        place = ".".join(str(part) for part in exc.errors(include_input=False, include_url=False)[0]["loc"])
        raise InvalidMessageError(f"the price correction is not valid at {place or 'its beginning'}") from None
    try:
        hour_from_iso(correction.hour)
    except ValueError:
        raise InvalidMessageError("the price correction is not valid at hour") from None
    if key != keys.join(correction.connection_id, correction.session_id):
        raise InvalidMessageError("the message's key is not connection_id|session_id")
    return correction


def kind_of(bucket: CostBucket) -> tuple[str, str | None, str | None, str]:
    """Return the model, service tier, speed and attribution (canonical JSON) of a bucket."""
    attribution = orjson.dumps(bucket.attribution.model_dump(exclude_none=True), option=orjson.OPT_SORT_KEYS)
    return bucket.model, bucket.service_tier, bucket.speed, attribution.decode()


def correct(state: State, correction: PriceCorrection) -> str | None:
    """Apply a correction, or return why it does not fit; the state is then as it was.

    The caller sets `state.repriced` and `state.version` once it is applied.
    """
    if version_number(*correction.row_version) < state.repriced:
        return OUTDATED
    moves: list[_Move] = []
    for one in correction.moves:
        found = _found(state, one, correction.book)
        if isinstance(found, str):
            return found
        moves.append(found)
    if len({move.to for move in moves}) < len(moves):
        return CHANGED
    moving = {place: move.to for move in moves for place in move.places}
    recounted = dict(_costs(state, moving, correction.costs))
    if None in recounted.values():
        return CHANGED
    new = sum(size_of(move.to) for move in moves if move.to not in state.buckets)
    if state.size + new > MAX_BUCKET_BYTES:
        return FULL
    buckets, named = list(state.buckets.values()), list(state.buckets)
    for move in moves:
        sums = state.buckets.get(move.to) or open_bucket(state, move.to)
        assert sums is not None, "there is space"
        for index, number in enumerate(move.sums):
            sums[index] += number
        for place in move.places:
            buckets[place][:] = s.zero()
            state.lowered.add(named[place])
    places = {bucket: place for place, bucket in enumerate(state.buckets)}
    state.ids.recount(
        {
            ident: c.pack(places[moving[was.place]], was.counts, cost, was.reported, (was.late, was.inconsistent))
            for ident, found in recounted.items()
            if found is not None
            for was, cost in (found,)
        }
    )
    return None


def _found(state: State, move: PriceMove, book: str) -> _Move | str:
    """Return the buckets of a move as the state has them, or why they are not those of the correction."""
    (kind, *others) = {kind_of(bucket) for bucket in move.was}
    model, tier, speed, attribution = kind
    wanted = {bucket.book: bucket.model_dump(include=set(_SUMS)) for bucket in move.was}
    sums, places, have = s.zero(), [], {}
    for place, (bucket, now) in enumerate(state.buckets.items()):
        if now[s.REQUESTS] and bucket[3] != book and (*bucket[:3], bucket[4]) == kind:
            places.append(place)
            have[bucket[3]] = s.to_fields(now)
            sums = [a + b for a, b in zip(sums, now, strict=True)]
    if others or len(wanted) < len(move.was) or have != wanted:
        return CHANGED
    cost, unpriced = to_pico(move.cost_usd or "0"), move.unpriced_requests
    priced = sums[s.REQUESTS] - unpriced
    if priced < 0 or (cost and not priced):
        return IMPOSSIBLE
    sums[s.COST], sums[s.UNPRICED] = cost, unpriced
    return _Move(places, sums, (model, tier, speed, book, attribution))


def _costs(
    state: State, moving: Mapping[int, BucketKey], costs: Mapping[str, str | None]
) -> Iterator[tuple[int, tuple[c.Counted, int | None] | None]]:
    """Yield each remembered request that moves: what was counted and its new cost, None if that is not known."""
    for ident, what in state.ids.seen.items():
        was = c.unpack(what)
        if was is not None and was.place in moving:
            name = f"{ident:016x}"
            usd = costs.get(name)
            yield ident, (was, None if usd is None else to_pico(usd)) if name in costs else None


def correction_of(
    row: SessionHourCost, book: str, moves: Sequence[PriceMove], costs: Mapping[int, str | None]
) -> PriceCorrection:
    """Return the correction of a public row; `costs` by event id."""
    return PriceCorrection(
        connection_id=row.connection_id,
        session_id=row.session_id,
        hour=row.hour,
        row_version=row.version,
        book=book,
        moves=list(moves),
        costs={f"{ident:016x}": usd for ident, usd in costs.items()},
    )
