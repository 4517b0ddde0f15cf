/** Draws a dashboard with Grafana's own components from the query results of shoot.py. */
import {
  applyFieldOverrides,
  createTheme,
  type DataFrame,
  dateTime,
  EventBusSrv,
  FieldColorModeId,
  FieldType,
  getDisplayValueAlignmentFactors,
  getFieldDisplayValues,
  standardFieldConfigEditorRegistry,
  standardTransformers,
  standardTransformersRegistry,
  ThemeContext,
  type TimeRange,
  toDataFrame,
  transformDataFrame,
  VizOrientation,
} from '@grafana/data';
import { BarGauge, BigValue, GlobalStyles, PanelChrome, PanelContextRoot, Table, TimeSeries } from '@grafana/ui';
import { Component, type ReactNode } from 'react';
import { createRoot } from 'react-dom/client';
import { lastValueFrom } from 'rxjs';

interface Series {
  refId: string;
  name: string;
  labels: Record<string, string>;
  times: number[];
  values: Array<number | null>;
}
interface Shot {
  dashboard: { title: string; panels: any[] };
  /** By panel id, the series of each of its queries, in the order of its targets. */
  answers: Record<string, Series[][]>;
  from: number;
  to: number;
  width: number;
}

const CELL = 30;
const GAP = 8;
const shot: Shot = (window as any).SHOT;
const theme = createTheme({ colors: { mode: 'dark' } });
const range: TimeRange = { from: dateTime(shot.from), to: dateTime(shot.to), raw: { from: dateTime(shot.from), to: dateTime(shot.to) } };
const same = (text: string) => text;

// Grafana's application fills these; here they are what our dashboards use.
const property = (id: string, path = id) => ({
  id, path, name: id, editor: () => null, override: () => null, process: (value: unknown) => value,
  shouldApply: () => true, settings: {},
});
const CURVE = {
  drawStyle: 'line', lineInterpolation: 'linear', lineWidth: 1, fillOpacity: 0, gradientMode: 'none', showPoints: 'auto', pointSize: 5,
  spanNulls: false, axisPlacement: 'auto', axisLabel: '', axisColorMode: 'text', axisBorderShow: false, axisCenteredZero: false,
  axisSoftMax: undefined, barAlignment: 0, insertNulls: false, scaleDistribution: { type: 'linear' }, stacking: { mode: 'none', group: 'A' },
  thresholdsStyle: { mode: 'off' }, hideFrom: { legend: false, tooltip: false, viz: false },
};
const PROPERTIES = ['unit', 'decimals', 'min', 'max', 'noValue', 'thresholds', 'mappings', 'color', 'displayName', 'links'];
const CUSTOM = [...Object.keys(CURVE), 'align', 'cellOptions', 'width'];
standardFieldConfigEditorRegistry.setInit(
  () => [...PROPERTIES.map((id) => property(id)), ...CUSTOM.map((id) => ({ ...property(`custom.${id}`, id), isCustom: true }))] as any
);
const TRANSFORMERS = new Map(Object.values(standardTransformers).map((one: any) => [one.id, one])); // some stand there twice
standardTransformersRegistry.setInit(
  () => [...TRANSFORMERS.values()].map((one) => ({ id: one.id, name: one.name, transformation: async () => one, editor: () => null })) as any
);

function curves(series: Series[]): DataFrame[] {
  return series.map((one) =>
    toDataFrame({
      refId: one.refId,
      fields: [
        { name: 'Time', type: FieldType.time, values: one.times },
        { name: 'Value', type: FieldType.number, values: one.values, labels: one.labels, config: { displayNameFromDS: one.name } },
      ],
    })
  );
}

/** A frame per query: Time, the labels, the value. */
function tables(answers: Series[][]): DataFrame[] {
  return answers.map((series, place) => {
    const refId = String.fromCharCode(65 + place);
    const labels = [...new Set(series.flatMap((one) => Object.keys(one.labels)))].sort();
    const fields: any[] = [{ name: 'Time', type: FieldType.time, values: series.map((one) => one.times.at(-1)) }];
    labels.forEach((label) => fields.push({ name: label, type: FieldType.string, values: series.map((one) => one.labels[label] ?? '') }));
    const value = answers.length > 1 ? `Value #${refId}` : 'Value';
    fields.push({ name: value, type: FieldType.number, values: series.map((one) => one.values.at(-1)), config: {} });
    return toDataFrame({ refId, fields });
  });
}

async function prepared(panel: any): Promise<DataFrame[]> {
  const answers = shot.answers[panel.id];
  let data = panel.type === 'table' ? tables(answers) : curves(answers.flat());
  if (panel.transformations?.length) {
    data = await lastValueFrom(transformDataFrame(panel.transformations, data));
  }
  const curve = panel.type === 'timeseries';
  const color = { mode: curve ? FieldColorModeId.PaletteClassic : FieldColorModeId.Thresholds };
  const defaults = { color, ...panel.fieldConfig.defaults };
  // JSON has no infinity: where Grafana reads a dashboard, a first step without a value is below all others.
  defaults.thresholds?.steps.forEach((step: any) => (step.value ??= -Infinity));
  defaults.custom = { ...(curve ? CURVE : {}), ...defaults.custom };
  return applyFieldOverrides({
    data, theme, fieldConfig: { defaults, overrides: panel.fieldConfig.overrides }, replaceVariables: same, timeZone: 'utc',
  });
}

function Viz({ panel, data, width, height }: { panel: any; data: DataFrame[]; width: number; height: number }) {
  const options = panel.options;
  if (panel.type === 'timeseries') {
    return (
      <TimeSeries frames={data} width={width} height={height} timeRange={range} timeZone="utc" legend={options.legend} options={options as any} />
    );
  }
  if (panel.type === 'table') {
    return <Table data={data[0]} width={width} height={height} initialSortBy={options.sortBy} showTypeIcons={false} />;
  }
  const values = getFieldDisplayValues({
    data, theme, reduceOptions: options.reduceOptions, replaceVariables: same, fieldConfig: panel.fieldConfig, timeZone: 'utc',
  });
  if (panel.type === 'stat') {
    return (
      <BigValue value={values[0].display} width={width} height={height} theme={theme} colorMode={options.colorMode} graphMode={options.graphMode}
        justifyMode={options.justifyMode} textMode={options.textMode} />
    );
  }
  const factors = getDisplayValueAlignmentFactors(values);
  const room = Math.min(Math.floor(height / values.length), 64);
  return (
    <div>
      {values.map((value, place) => (
        <div key={place} style={{ height: room }}>
          <BarGauge value={value.display} field={value.field} display={value.view?.getFieldDisplayProcessor(value.colIndex ?? 0)} width={width}
            height={room - GAP} theme={theme} orientation={VizOrientation.Horizontal} displayMode={options.displayMode}
            showUnfilled={options.showUnfilled} valueDisplayMode={options.valueMode} namePlacement={options.namePlacement} text={options.text} alignmentFactors={factors} />
        </div>
      ))}
    </div>
  );
}

/** A component that fails must be seen as that, not as an empty page. */
class Guard extends Component<{ children: ReactNode; id: number }, { error?: Error }> {
  state: { error?: Error } = {};
  static getDerivedStateFromError(error: Error) {
    return { error };
  }
  render() {
    return this.state.error ? <pre data-failed={this.props.id}>{String(this.state.error.stack)}</pre> : this.props.children;
  }
}

const empty = (data: DataFrame[]) => !data.some((frame) => frame.length > 0);

function Board({ frames }: { frames: Map<number, DataFrame[]> }) {
  const column = (shot.width - 2 * GAP) / 24;
  return (
    <div style={{ position: 'relative', margin: GAP }}>
      {shot.dashboard.panels.map((panel) => {
        const { x, y, w, h } = panel.gridPos;
        const width = Math.floor(w * column) - GAP;
        const height = h * (CELL + GAP) - GAP;
        const place = { position: 'absolute', left: Math.floor(x * column), top: y * (CELL + GAP), width, height } as const;
        if (panel.type === 'row') {
          return <div key={panel.id} style={{ ...place, font: '500 18px Inter, sans-serif', color: theme.colors.text.primary }}>⌄ {panel.title}</div>;
        }
        const data = frames.get(panel.id)!;
        const nothing = empty(data);
        return (
          <div key={panel.id} style={place} data-panel={panel.id} data-state={nothing ? 'empty' : 'drawn'}>
            <PanelChrome title={panel.title} description={panel.description} width={width} height={height}>
              {(innerWidth, innerHeight) => (
                <Guard id={panel.id}>
                  {nothing ? (
                    <div style={{ color: theme.colors.text.secondary, textAlign: 'center', paddingTop: innerHeight / 3 }}>
                      {panel.fieldConfig.defaults.noValue ?? 'No data'}
                    </div>
                  ) : (
                    <Viz panel={panel} data={data} width={innerWidth} height={innerHeight} />
                  )}
                </Guard>
              )}
            </PanelChrome>
          </div>
        );
      })}
    </div>
  );
}

async function draw() {
  const frames = new Map<number, DataFrame[]>();
  for (const panel of shot.dashboard.panels.filter((one) => one.type !== 'row')) {
    frames.set(panel.id, await prepared(panel));
  }
  const context = { eventsScope: 'look', eventBus: new EventBusSrv() } as any;
  createRoot(document.getElementById('board')!).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <PanelContextRoot.Provider value={context}>
        <Board frames={frames} />
      </PanelContextRoot.Provider>
    </ThemeContext.Provider>
  );
}

draw().catch((error) => {
  document.getElementById('board')!.innerHTML = `<pre data-failed="all">${String(error.stack)}</pre>`;
});
