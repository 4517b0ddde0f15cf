"""Draws charts as SVG on the server, with axes, titles and a text alternative, and without scripts or styles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from markupsafe import Markup, escape

from tallystream.console.format import dollars, short_dollars

WIDTH, HEIGHT = 1000, 250
LEFT, RIGHT, TOP, BOTTOM = 64, 4, 14, 30


@dataclass(frozen=True)
class ChartBar:
    """One bar: its label, its value, and the value of the mark next to it (None: no mark)."""

    label: str
    tick: str
    value: str | None
    mark: str | None = None
    href: str = ""


def bars(title: str, drawn: Sequence[ChartBar], *, of: str, mark: str = "") -> Markup:
    """Return a bar chart in dollars. `of` names what a bar stands for, `mark` the lines across the bars."""
    values = [Decimal(bar.value or 0) for bar in drawn]
    marks = [Decimal(bar.mark or 0) for bar in drawn]
    top, step = _scale(max([*values, *marks, Decimal(0)]))
    plot_width, plot_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    slot = plot_width / max(1, len(drawn))

    def y(value: Decimal) -> float:
        return round(TOP + plot_height * (1 - float(value / top)), 2)

    out = [
        Markup('<svg class="chart" role="img" viewBox="0 0 {} {}" aria-label="{}">').format(
            WIDTH, HEIGHT, _summary(title, drawn, of, mark)
        )
    ]
    tick = Decimal(0)
    while tick <= top:
        out.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="axis" x="{}" y="{}"'
                   ' text-anchor="end">{}</text>').format(
                LEFT, WIDTH - RIGHT, y(tick), y(tick), LEFT - 6, y(tick) + 4, short_dollars(tick)
            )
        )  # fmt: skip
        tick += step
    every = max(1, -(-len(drawn) // 8))
    for place, (bar, value, before) in enumerate(zip(drawn, values, marks, strict=True)):
        x = round(LEFT + place * slot + slot * 0.14, 2)
        width = round(slot * 0.72, 2)
        text = f"{bar.label}: {dollars(bar.value)}" + (f"; {mark} {dollars(bar.mark)}" if mark else "")
        shape = Markup('<g><title>{}</title><rect class="hit" x="{}" y="{}" width="{}" height="{}"/>').format(
            text, round(LEFT + place * slot, 2), TOP, round(slot, 2), plot_height
        )
        height = round(TOP + plot_height - y(value), 2)
        if value:
            shape += Markup('<rect class="bar" x="{}" y="{}" width="{}" height="{}" rx="1.5"/>').format(
                x, y(value), width, max(height, 1)
            )
        if mark and before:
            shape += Markup('<line class="mark" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                round(LEFT + place * slot + slot * 0.04, 2), round(LEFT + (place + 1) * slot - slot * 0.04, 2),
                y(before), y(before),
            )  # fmt: skip
        if place % every == 0:
            # Every second label is hidden by the style sheet if there is little room.
            minor = " minor" if (place // every) % 2 else ""
            shape += Markup('<text class="axis{}" x="{}" y="{}" text-anchor="middle">{}</text>').format(
                minor, round(LEFT + (place + 0.5) * slot, 2), HEIGHT - 8, bar.tick
            )
        shape += Markup("</g>")
        out.append(Markup('<a href="{}" tabindex="-1">{}</a>').format(bar.href, shape) if bar.href else shape)
    out.append(Markup("</svg>"))
    return Markup("").join(out)


def share_bar(value: str | None, most: str | None) -> Markup:
    """Return a thin bar that shows the value's share of the largest."""
    part = float(Decimal(value or 0) / Decimal(most)) if most and Decimal(most) else 0.0
    return Markup(
        '<svg class="share" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="6" rx="3"/><rect class="fill" width="{}" height="6" rx="3"/></svg>'
    ).format(round(100 * max(0.0, min(1.0, part)), 2))


def _summary(title: str, drawn: Sequence[ChartBar], of: str, mark: str) -> str:
    priced = [bar for bar in drawn if bar.value and Decimal(bar.value)]
    if not priced:
        return str(escape(f"{title}: nothing in any {of}."))
    highest = max(priced, key=lambda bar: Decimal(bar.value or 0))
    total = sum(Decimal(bar.value or 0) for bar in drawn)
    beside = f" Lines: {mark}." if mark else ""
    return f"{title}: {dollars(str(total))} in all; highest {of} {highest.label}, {dollars(highest.value)}.{beside}"


def _scale(highest: Decimal) -> tuple[Decimal, Decimal]:
    """Return (top, step) of an axis: steps of 1, 2, 2.5 or 5, three to five of them."""
    if highest <= 0:
        return Decimal(1), Decimal("0.5")
    exponent = highest.adjusted()
    for factor in ("0.25", "0.5", "1", "2", "2.5", "5", "10"):
        step = Decimal(factor).scaleb(exponent)
        count = (highest / step).to_integral_value(ROUND_CEILING)
        if count <= 5:
            return step * count, step
    return highest, highest
