"""Compares cost rows with the truth exactly, to the token and the pico-dollar."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tallystream.simulator.truth import FIELDS, PICO, Key, Sums, Truth, add, sums_of, total

MEET = 16
"""At most 2 x MEET unknown responses of one row are tried in every combination; beyond, only the bounds are checked."""


@dataclass(frozen=True)
class Difference:
    """A row that differs from the truth. `wanted` and `found` are by field, money in pico-dollars."""

    kind: str
    """`missing` (no such row), `unexpected` (no such key), `wrong` (other numbers) or `foreign` (not our session)."""
    key: Key
    wanted: dict[str, int]
    found: dict[str, int]
    detail: str = ""

    def __str__(self) -> str:
        where = " ".join(str(part) for part in self.key[:5])
        fields = ", ".join(
            f"{name} {self.found.get(name, 0)} instead of {want}"
            for name, want in self.wanted.items()
            if self.found.get(name, 0) != want
        )
        return f"{self.kind}: {where} {dict(self.key.attribution)}: {fields or self.detail}"


_UNTOLD = ("user", "agent", "billing", "account")
"""Fields of a row that the truth does not contain."""


def compare(
    truth: Truth, rows: Iterable[Mapping[str, Any]], *, attribution: bool = True, alone: bool = False
) -> list[Difference]:
    """Return where rows of `cost session-hours` differ from the truth; an empty list means they are exact.

    Rows that differ only in book, user, agent, payer or connection are added up. `attribution=False` ignores
    attribution.
    Rows of sessions that are not the fleet's are left out, unless it must be `alone`.
    """
    found: dict[Key, Sums] = {}
    ours = truth.session_ids
    differences: list[Difference] = []
    for row in rows:
        key, sums = _read(row, attribution)
        if key.session_id in ours:
            found[key] = add(found[key], sums) if key in found else sums
        elif alone:
            differences.append(Difference("foreign", key, {}, _named(sums), "not a session of this fleet"))
    wanted: dict[Key, Sums] = {}
    for key, sums in truth.acknowledged.items():
        key = _strip(key, attribution)
        wanted[key] = add(wanted[key], sums) if key in wanted else sums
    maybe: dict[Key, list[Sums]] = {}
    for key, responses in truth.unknown.items():
        maybe.setdefault(_strip(key, attribution), []).extend(map(sums_of, responses))
    nothing = total(())
    for key in dict.fromkeys((*wanted, *maybe, *found)):
        want, have = wanted.get(key, nothing), found.get(key, nothing)
        rest = tuple(h - w for h, w in zip(have, want, strict=True))
        extra = maybe.get(key, [])
        if not any(rest) or _possible(rest, extra):
            continue
        kind = "unexpected" if key not in wanted and not extra else "missing" if key not in found else "wrong"
        detail = f"and no choice of the {len(extra)} unknown ones explains it" if extra else ""
        differences.append(Difference(kind, key, _named(want), _named(have), detail))
    return differences


def _strip(key: Key, attribution: bool) -> Key:
    return key if attribution else key._replace(attribution=())


def _named(sums: Sums) -> dict[str, int]:
    return dict(zip(FIELDS, sums, strict=True))


def _read(row: Mapping[str, Any], attribution: bool) -> tuple[Key, Sums]:
    """Read a row as `cost session-hours --json` prints it."""
    who = row["attribution"] if attribution else {}
    pairs = tuple(sorted((name, value) for name, value in who.items() if value is not None and name not in _UNTOLD))
    key = Key(row["client"], row["session_id"], row["hour"], row["model"], row["service_tier"], pairs)
    counts = (row[name] for name in FIELDS if not name.endswith("_pico"))
    return key, (*counts, _pico(row["cost_usd"]), _pico(row["reported_cost_usd"]))


def _pico(usd: str | None) -> int:
    pico = Decimal(usd or 0) * PICO
    if pico != int(pico):
        raise ValueError(f"{usd} is not a whole number of pico-dollars")
    return int(pico)


def _possible(rest: Sums, extra: Sequence[Sums]) -> bool:
    """Say whether some of `extra`, each at most once, add up to `rest` in every field: meet in the middle."""
    if any(part < 0 for part in rest) or any(a > b for a, b in zip(rest, total(extra), strict=True)):
        return False
    if len(extra) > 2 * MEET:
        return True
    packed = list(map(_packed, extra))
    half = len(extra) // 2
    right, wanted = set(_choices(packed[half:])), _packed(rest)
    return any(wanted - chosen in right for chosen in _choices(packed[:half]))


def _packed(sums: Sums) -> int:
    """Put all fields into one number, far enough apart that adding never carries from one into the next."""
    number = 0
    for part in sums:
        number = number << 96 | part
    return number


def _choices(parts: Sequence[int]) -> list[int]:
    """Return the sum of every choice of the parts."""
    sums = [0]
    for part in parts:
        sums += [chosen + part for chosen in sums]
    return sums
