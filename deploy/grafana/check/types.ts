/** A dashboard as Grafana's schema has it, with the options of the panels we use; a JSON file says enums as plain text. */
import type { Dashboard, Panel, RowPanel } from '@grafana/schema';
import type { Options as BarGauge } from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type { Options as Stat } from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type { Options as Table, FieldConfig as TableField } from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type {
  FieldConfig as Curve,
  Options as TimeSeries,
} from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

/** T with every enum of texts replaced by the texts themselves. */
type Plain<T> = T extends string ? `${T}` : T extends readonly (infer One)[] ? Plain<One>[] : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;

type Defaults = NonNullable<NonNullable<Panel['fieldConfig']>['defaults']>;
type Threshold = { value: number | null; color: string };

/** What the schema leaves open, closed: a first threshold has no value, `custom` and `options` are those of the panel's type. */
type Of<Type extends string, Options, Custom> = Omit<Plain<Panel>, 'type' | 'options' | 'fieldConfig' | 'targets'> & {
  type: Type;
  options: Plain<Partial<Options>>;
  fieldConfig: {
    defaults: Omit<Plain<Defaults>, 'custom' | 'thresholds'> & {
      custom?: Plain<Partial<Custom>>;
      thresholds?: { mode: 'absolute' | 'percentage'; steps: Threshold[] };
    };
    overrides: Plain<NonNullable<Panel['fieldConfig']>['overrides']>;
  };
  targets: Target[];
};

/** A query to Prometheus; Grafana has its type in a package of the data source, which is not published alone. */
type Target = {
  datasource: { type: 'prometheus'; uid: string };
  expr: string;
  refId: string;
  legendFormat: string;
  instant: boolean;
  range: boolean;
  format?: 'time_series' | 'table' | 'heatmap';
};

export type Checked = Omit<Plain<Dashboard>, 'panels'> & {
  panels: (
    | Plain<RowPanel>
    | Of<'stat', Stat, never>
    | Of<'timeseries', TimeSeries, Curve>
    | Of<'bargauge', BarGauge, never>
    | Of<'table', Table, TableField>
  )[];
};
