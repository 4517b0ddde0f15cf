"""Charts: no bar exceeds the axis, and the content is also given as text."""

from __future__ import annotations

from decimal import Decimal
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from tallystream.console.charts import HEIGHT, TOP, ChartBar, _scale, bars
from tallystream.schemas.money import to_usd

amounts = st.none() | st.integers(0, 10**20).map(to_usd)


@given(st.lists(st.tuples(amounts, amounts), min_size=1, max_size=30))
def test_bars_and_marks_are_inside_the_chart(values: list[tuple[str | None, str | None]]) -> None:
    drawn = [ChartBar(f"<hour {place}>", str(place), value, mark) for place, (value, mark) in enumerate(values)]
    tree = ET.fromstring(bars("Cost", drawn, of="hour", mark="before"))
    for shape in tree.iter("rect"):
        assert float(shape.attrib["y"]) >= TOP
        assert float(shape.attrib["y"]) + float(shape.attrib["height"]) <= HEIGHT
    for line in tree.iter("line"):
        assert TOP <= float(line.attrib["y1"]) <= HEIGHT
    assert tree.attrib["role"] == "img"
    assert "Cost" in tree.attrib["aria-label"]
    assert len(list(tree.iter("title"))) == len(values)


@given(st.decimals(min_value=Decimal("1e-12"), max_value=Decimal("1e12")))
def test_axis_has_few_even_steps(highest: Decimal) -> None:
    top, step = _scale(highest)
    assert top >= highest
    assert top % step == 0
    assert 1 <= top / step <= 5
