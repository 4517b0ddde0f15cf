"""Decides which sightings belong to one call: a pure function of a set of sightings, independent of their order.

    1  the same span is itself, however often it is sent
    2  the same response id is the same call, in any trace, process or request
    3  a call below a call, with no id that speaks against it: the same call when both count the same tokens. An outer
       one that counts what the inner ones count together is their sum and does not count; others, such as a call whose
       tool makes calls, count like any call
    4  no id on one side: two instrumentations of one process that count the same tokens, one within the other in time,
       saw the same call; each sees it once. One of them may not know the input, or only the part that is not cached

Calls that were decided before (`known`) stay as they are: later sightings can only join them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from tallystream.schemas.clients.genai.sighting import Sighting
from tallystream.schemas.clients.genai.tree import Key, Tree
from tallystream.schemas.clients.request_ids import unique_id

TOLERANCE_NS = 2_000_000
"""Tolerance in ns: two instrumentations read the clock one after the other, and some only in milliseconds."""

Group = tuple[Sighting, ...]
"""Sightings of one call, the innermost first."""
Likeness = tuple[str, str, int]
"""A process, what it counts, and how many."""


def join_calls(tree: Tree, known: Iterable[Sequence[Key]] = ()) -> list[Group]:
    """Return the sightings grouped by call, in a deterministic order.

    Args:
        tree: the sightings.
        known: keys of sightings that have been found to be of one call before.

    """
    calls = {key: seen for key, seen in sorted(tree.by_key.items()) if seen.kind == "call"}
    groups = _Groups(calls)
    for keys in known:
        groups.unite(*(key for key in keys if key in calls))
    _by_id(calls, groups)
    sums = _by_descent(tree, calls, groups)
    _by_time(calls, groups, sums)
    found = defaultdict(list)
    for key, seen in calls.items():
        if key not in sums:
            found[groups.of(key)].append(seen)
    return [tuple(sorted(members, key=_innermost)) for members in found.values()]


def _innermost(seen: Sighting) -> tuple[object, ...]:
    return seen.end_ns - seen.start_ns, -seen.start_ns, seen.key


class _Groups:
    """Union-find, its representatives the least keys."""

    def __init__(self, calls: dict[Key, Sighting]) -> None:
        self._up = {key: key for key in calls}
        self.ids = {key: {unique} if (unique := unique_id(seen.response_id)) else set() for key, seen in calls.items()}
        self.scopes = {key: {(seen.process, seen.scope)} for key, seen in calls.items()}

    def of(self, key: Key) -> Key:
        while (up := self._up[key]) != key:
            self._up[key] = key = self._up[up]
        return key

    def unite(self, *keys: Key) -> None:
        for other in keys[1:]:
            first, second = sorted((self.of(keys[0]), self.of(other)))
            if first != second:
                self._up[second] = first
                self.ids[first] |= self.ids.pop(second)
                self.scopes[first] |= self.scopes.pop(second)

    def may_be_one(self, one: Key, other: Key) -> bool:
        """Tell whether two groups can be the same call, which different response ids rule out."""
        first, second = self.ids[self.of(one)], self.ids[self.of(other)]
        return not first or not second or bool(first & second)


def _by_id(calls: dict[Key, Sighting], groups: _Groups) -> None:
    first: dict[str, Key] = {}
    for key, seen in calls.items():
        if unique := unique_id(seen.response_id):
            groups.unite(first.setdefault(unique, key), key)


def _by_descent(tree: Tree, calls: dict[Key, Sighting], groups: _Groups) -> set[Key]:
    """Unite calls with the span above that saw the same call; return the spans that are sums of the calls below
    them.
    """
    below: dict[Key, list[Key]] = defaultdict(list)
    for key, seen in calls.items():
        outer = next((up for up in tree.above(seen) if up.key in calls), None)
        if outer is not None:
            below[outer.key].append(key)
    sums: set[Key] = set()
    for outer_key, inner_keys in below.items():
        outer = calls[outer_key]
        apart = [key for key in inner_keys if groups.of(key) != groups.of(outer_key)]
        told = [key for key in apart if calls[key].has_usage and groups.may_be_one(key, outer_key)]
        if not told:
            silent = [key for key in apart if not calls[key].has_usage and groups.may_be_one(key, outer_key)]
            if len(silent) == 1 and len(inner_keys) == 1:
                groups.unite(outer_key, silent[0])  # an attempt without usage, and the span that asked for it
            continue
        same = [key for key in told if not outer.has_usage or _same_call(calls[key], outer)]
        if len(same) == 1:
            groups.unite(outer_key, same[0])
        elif outer.has_usage and len(inner_keys) == len(apart) and _is_sum(outer, [calls[key] for key in apart]):
            sums.add(outer_key)
    return sums


def _same_call(one: Sighting, other: Sighting) -> bool:
    return one.input == other.input or _same_tokens(one, other)


def _is_sum(outer: Sighting, inner: list[Sighting]) -> bool:
    """Tell whether a span counts what the ones below it count together, as far as these tell.

    Several instrumentations may have seen the same ones, so each is added up by itself.
    """
    added: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for seen in inner:
        added[seen.scope][0] += seen.input or 0
        added[seen.scope][1] += seen.output or 0
    whole = [outer.input or 0, outer.output or 0]
    if whole in added.values():
        return True
    silent = {seen.scope for seen in inner if not seen.has_usage}
    return any(whole[0] >= added[scope][0] and whole[1] >= added[scope][1] for scope in silent)


def _by_time(calls: dict[Key, Sighting], groups: _Groups, sums: set[Key]) -> None:
    """Unite sightings of different instrumentations in one process at the same time, the closest first."""
    alike: dict[Likeness, list[Sighting]] = defaultdict(list)
    told = [seen for key, seen in calls.items() if seen.has_usage and key not in sums]
    for seen in told:
        for likeness in likenesses(seen):
            alike[likeness].append(seen)
    pairs: set[tuple[int, Key, Key]] = set()
    for one in told:
        for likeness in sought(one):
            for other in alike.get(likeness, ()):
                if one.scope != other.scope and _same_tokens(one, other) and _within(one, other):
                    apart = abs(one.start_ns - other.start_ns) + abs(one.end_ns - other.end_ns)
                    pairs.add((apart, min(one.key, other.key), max(one.key, other.key)))
    for _, one_key, other_key in sorted(pairs):
        first, second = groups.of(one_key), groups.of(other_key)
        if (
            first != second
            and groups.may_be_one(first, second)
            and not (groups.ids[first] and groups.ids[second])
            and not groups.scopes[first] & groups.scopes[second]
        ):
            groups.unite(first, second)


def likenesses(seen: Sighting) -> tuple[Likeness, ...]:
    """Return under what a sighting is found by others that may be of the same call."""
    output = seen.output or 0
    if is_unread(seen):
        return (seen.process, "unread", output), (seen.process, "output", output)
    return (*_by_input(seen), (seen.process, "output", output))


def sought(seen: Sighting) -> tuple[Likeness, ...]:
    """Return under what others are found that may be of the same call.

    Many calls have equal outputs, so only a sighting that does not know its input looks at all of them.
    """
    output = seen.output or 0
    if is_unread(seen):
        return ((seen.process, "output", output),)
    return (*_by_input(seen), (seen.process, "unread", output))


def is_unread(seen: Sighting) -> bool:
    """Tell whether a sighting knows the output of its call, but not the input, which every call has."""
    return not seen.input and (seen.output or 0) > 1


def _by_input(seen: Sighting) -> tuple[Likeness, ...]:
    whole, part = seen.input or 0, _uncached(seen)
    return tuple((seen.process, "input", count) for count in ((whole,) if part == whole else (whole, part)))


def _uncached(seen: Sighting) -> int:
    return (seen.input or 0) - (seen.cache_read or 0) - (seen.cache_write or 0)


def _same_tokens(one: Sighting, other: Sighting) -> bool:
    """Tell whether the counts may be of one call.

    Equal inputs: an aborted stream has no output, or the 1 that its start event reports. Equal outputs: some streams
    are read without their input, and some producers leave out cached tokens, which are counted beside it.
    """
    if one.input == other.input:
        return one.output == other.output or min(one.output or 0, other.output or 0) <= 1
    return one.output == other.output and (is_part(one, other) or is_part(other, one))


def is_part(one: Sighting, whole: Sighting) -> bool:
    """Tell whether the input of one sighting is unknown, or only the part of the other's that is not cached.

    A producer that reports only this part may report the cached tokens beside it.
    """
    cached = one.cache_read or 0, one.cache_write or 0
    if any(cached) and cached != (whole.cache_read or 0, whole.cache_write or 0):
        return False
    return one.input == _uncached(whole) or not (one.input or any(cached))


def _within(one: Sighting, other: Sighting) -> bool:
    inner, outer = sorted((one, other), key=lambda seen: seen.end_ns - seen.start_ns)
    return outer.start_ns - TOLERANCE_NS <= inner.start_ns and inner.end_ns <= outer.end_ns + TOLERANCE_NS
