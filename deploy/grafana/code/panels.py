"""Helpers with the options that all our panels share, so that the dashboards contain only what differs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphDrawStyle,
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    ScaleDistribution,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
LEDGER = DataSourceRef(type_val="grafana-postgresql-datasource", uid="${ledger}")
USD = "currencyUSD"
FULL, HALF, THIRD, SIXTH = 24, 12, 8, 4
Panel = timeseries.Panel | stat.Panel | table.Panel | bargauge.Panel


class Query(NamedTuple):
    """A query and the legend of its series."""

    expr: str
    legend: str = ""


class Sql(NamedTuple):
    """A query of the ledger in PostgreSQL; `series` if its columns are time, metric and value."""

    text: str
    series: bool = False


class _SqlQuery(variants.Dataquery, Builder[variants.Dataquery]):
    """The target of a Sql query, which is also its builder, because the SDK does not model this data source."""

    def __init__(self, query: Sql, place: int) -> None:
        self._query = query
        self._place = place

    def build(self) -> variants.Dataquery:
        """Return itself."""
        return self

    def to_json(self) -> dict[str, Any]:
        """Return what Grafana's query editor writes."""
        return {
            "refId": chr(ord("A") + self._place),
            "datasource": LEDGER,
            "editorMode": "code",
            "format": "time_series" if self._query.series else "table",
            "rawQuery": True,
            "rawSql": " ".join(self._query.text.split()),
        }


def _source(query: Query | Sql) -> DataSourceRef:
    return LEDGER if isinstance(query, Sql) else SOURCE


def _target(query: Query | Sql, place: int, *, instant: bool) -> Builder[variants.Dataquery]:
    return _SqlQuery(query, place) if isinstance(query, Sql) else _prometheus(query, place, instant=instant)


def _prometheus(query: Query, place: int, *, instant: bool) -> prometheus.Dataquery:
    target = (
        prometheus.Dataquery()
        .expr(" ".join(query.expr.split()))
        .legend_format(query.legend or "__auto")
        .ref_id(chr(ord("A") + place))  # the SDK leaves it empty
        .datasource(SOURCE)
    )
    return target.instant() if instant else target.range()


def _steps(limits: Sequence[tuple[float, str]]) -> dashboard.ThresholdsConfig:
    first = Threshold(value=None, color="green" if limits else "text")
    steps = [first, *(Threshold(value=value, color=color) for value, color in limits)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def number(
    title: str, text: str, expr: str | Sql, *, unit: str = "short", span: int = SIXTH, decimals: float | None = None,
    limits: Sequence[tuple[float, str]] = (), missing: str = "-",
) -> stat.Panel:  # fmt: skip
    """Return one big number; `limits` are (value, colour of this value and higher ones)."""
    query = expr if isinstance(expr, Sql) else Query(expr, title)
    panel = (
        stat.Panel()
        .title(title)
        .description(text)
        .datasource(_source(query))
        .with_target(_target(query, 0, instant=True))
        .unit(unit)
        .no_value(missing)
        .graph_mode(BigValueGraphMode.NONE)
        .color_mode(BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
        .thresholds(_steps(limits))
        .span(span)
        .height(4)
    )
    return panel if decimals is None else panel.decimals(decimals)


def lines(
    title: str, text: str, *queries: Query | Sql, unit: str = "short", span: int = HALF, stacked: bool = False,
    limits: Sequence[tuple[float, str]] = (), top: float | None = None, log: bool = False, beside: bool = False,
    signed: bool = False,
) -> timeseries.Panel:  # fmt: skip
    """Return curves over time, or stacked areas.

    `limits` are drawn as lines. The axis reaches at least up to `top`, so that small values look small. `log` is for
    values from milliseconds to minutes. `beside` puts the legend to the right, for long names.
    The axis begins at 0, unless values may be negative (`signed`).
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(text)
        .datasource(_source(queries[0]))
        .unit(unit)
        .draw_style(GraphDrawStyle.LINE)
        .show_points(VisibilityMode.NEVER)
        .fill_opacity(25 if stacked else 8)
        .line_width(1)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.TABLE if beside else LegendDisplayMode.LIST)
            .placement(LegendPlacement.RIGHT if beside else LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull"])
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
        .thresholds(_steps(limits))
        .span(span)
        .height(8)
    )
    if log:
        panel = panel.scale_distribution(common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(10))
    elif not signed:
        panel = panel.min(0)
    if top is not None:
        panel = panel.axis_soft_max(top)
    if limits:
        panel = panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.DASHED))
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    for place, query in enumerate(queries):
        panel = panel.with_target(_target(query, place, instant=False))
    return panel


def bars(title: str, text: str, query: Query | Sql, *, unit: str = "short", span: int = THIRD) -> bargauge.Panel:
    """Return a bar for each series, in the order of the query's result."""
    return (
        bargauge.Panel()
        .title(title)
        .description(text)
        .datasource(_source(query))
        .with_target(_target(query, 0, instant=True))
        .unit(unit)
        .min(0)
        .orientation(VizOrientation.HORIZONTAL)
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.FIXED).fixed_color("blue"))
        .text(common.VizTextDisplayOptions().title_size(14).value_size(16))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(isinstance(query, Sql)))
        .thresholds(_steps([]))
        .span(span)
        .height(9)
    )


def grid(
    title: str, text: str, *queries: Query, by: str, sort: str, units: dict[str, str], span: int = HALF
) -> table.Panel:
    """Return a table with a row for each value of the label `by` and a column for each query, named by its legend.

    Rows are sorted by the column `sort`, the highest value first. A query without a legend adds its labels as columns,
    but not its value.
    """
    panel = table.Panel().title(title).description(text).datasource(SOURCE).unit("locale").span(span).height(9)
    panel = panel.sort_by([common.TableSortByFieldState().display_name(sort).desc(True)])
    renamed, hidden = {}, {"Time": True} | {f"Time {n}": True for n in range(1, len(queries) + 1)}
    for place, query in enumerate(queries):
        target = _prometheus(query, place, instant=True).format(PromQueryFormat.TABLE)
        panel = panel.with_target(target)
        value = f"Value #{chr(ord('A') + place)}" if len(queries) > 1 else "Value"
        if query.legend:
            renamed[value] = query.legend
        else:
            hidden[value] = True
    panel = panel.with_transformation(
        DataTransformerConfig(id_val="joinByField", options={"byField": by, "mode": "outer"})
    )
    panel = panel.with_transformation(
        DataTransformerConfig(id_val="organize", options={"excludeByName": hidden, "renameByName": renamed})
    )
    for column, unit in units.items():
        panel = panel.override_by_name(column, [DynamicConfigValue(id_val="unit", value=unit)])
    return panel


def rows(title: str, text: str, query: Sql, *, units: dict[str, str], span: int = HALF) -> table.Panel:
    """Return a table with the rows and columns of a query, in its order."""
    panel = table.Panel().title(title).description(text).datasource(LEDGER).unit("locale").span(span).height(9)
    panel = panel.with_target(_target(query, 0, instant=True))
    for column, unit in units.items():
        panel = panel.override_by_name(column, [DynamicConfigValue(id_val="unit", value=unit)])
    return panel


def source() -> dashboard.DatasourceVariable:
    """Return the variable that selects the Prometheus data source."""
    return dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")


def choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    """Return a variable with multiple selection; by default all values are selected."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def ledger() -> dashboard.DatasourceVariable:
    """Return the variable that selects the ledger's PostgreSQL data source."""
    return dashboard.DatasourceVariable("ledger").label("Ledger").type("grafana-postgresql-datasource")


def board(
    uid: str, title: str, text: str, *, since: str, reads: dashboard.DatasourceVariable | None = None
) -> dashboard.Dashboard:
    """Return an empty dashboard with `reads` as its data source, by default a Prometheus."""
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(text)
        .tags(["tallystream"])
        .time(since, "now")
        .refresh("30s")
        .timezone("utc")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(reads or source())
    )
