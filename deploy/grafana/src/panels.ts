// How every panel of ours looks, so that a dashboard says only what it shows: one data source, one
// legend, one tooltip, units by name.

import type { Builder, Dataquery } from '@grafana/grafana-foundation-sdk/cog';
import {
  BigValueColorMode,
  BigValueGraphMode,
  GraphGradientMode,
  LegendDisplayMode,
  LegendPlacement,
  LineInterpolation,
  ReduceDataOptionsBuilder,
  SortOrder,
  StackingConfigBuilder,
  StackingMode,
  TooltipDisplayMode,
  VisibilityMode,
  VizLegendOptionsBuilder,
  VizTooltipOptionsBuilder,
} from '@grafana/grafana-foundation-sdk/common';
import {
  FieldColorBuilder,
  FieldColorModeId,
  MappingType,
  ThresholdsConfigBuilder,
  ThresholdsMode,
  type ValueMap,
} from '@grafana/grafana-foundation-sdk/dashboard';
import { DataqueryBuilder } from '@grafana/grafana-foundation-sdk/prometheus';
import { PanelBuilder as StatBuilder } from '@grafana/grafana-foundation-sdk/stat';
import { PanelBuilder as TimelineBuilder } from '@grafana/grafana-foundation-sdk/statetimeline';
import { PanelBuilder as GraphBuilder } from '@grafana/grafana-foundation-sdk/timeseries';

/** The variable that names the Prometheus; the dashboard is not bound to one Grafana. */
export const DATA_SOURCE = { type: 'prometheus', uid: '${datasource}' } as const;

/** Grafana's grid is 24 wide. */
const GRAPH_HEIGHT = 8;
const STAT_HEIGHT = 4;
/** Colours of Grafana's own palette, which its light and dark themes both know. */
const GOOD = 'green';
const WARNING = 'orange';
const BAD = 'red';

export interface Query {
  /** PromQL; may use $node, $service and $__rate_interval. */
  readonly expr: string;
  /** As `{{verb}}`; what tells the series apart. */
  readonly legend: string;
}

/** Panels under one heading. */
export interface Row {
  readonly title: string;
  readonly panels: readonly (GraphBuilder | StatBuilder | TimelineBuilder)[];
}

interface PanelText {
  readonly title: string;
  /** What is seen, and what to think of it; the i in the panel's corner. */
  readonly description: string;
  /** One of Grafana's unit ids, as `s`, `ops`, `bytes`. */
  readonly unit: string;
  readonly width: number;
  readonly queries: readonly Query[];
}

/** Curves over time, with a table of the latest and largest values below. */
export function graph(
  panel: PanelText & {
    readonly stacked?: boolean;
    readonly decimals?: number;
    /** What an empty panel says, where that is good news. */
    readonly whenEmpty?: string;
  },
): GraphBuilder {
  const { stacked = false } = panel;
  const builder = new GraphBuilder()
    .title(panel.title)
    .description(panel.description)
    .datasource(DATA_SOURCE)
    .height(GRAPH_HEIGHT)
    .span(panel.width)
    .unit(panel.unit)
    .min(0)
    .targets(targets(panel.queries))
    .lineWidth(1)
    .lineInterpolation(LineInterpolation.Linear)
    .fillOpacity(stacked ? 35 : 8)
    .gradientMode(GraphGradientMode.Opacity)
    .showPoints(VisibilityMode.Never)
    // A service that restarts leaves a gap of seconds; a line across it reads better than two stumps.
    .spanNulls(60_000)
    .stacking(
      new StackingConfigBuilder()
        .mode(stacked ? StackingMode.Normal : StackingMode.None)
        .group('A'),
    )
    .colorScheme(new FieldColorBuilder().mode(FieldColorModeId.PaletteClassicByName))
    .legend(
      new VizLegendOptionsBuilder()
        .displayMode(LegendDisplayMode.Table)
        .placement(LegendPlacement.Bottom)
        .showLegend(true)
        .calcs(['lastNotNull', 'max']),
    )
    .tooltip(
      new VizTooltipOptionsBuilder().mode(TooltipDisplayMode.Multi).sort(SortOrder.Descending),
    );
  if (panel.decimals !== undefined) builder.decimals(panel.decimals);
  if (panel.whenEmpty !== undefined) builder.noValue(panel.whenEmpty);
  return builder;
}

/** From which value on a number is coloured; `goodFrom` stands alone: all below it is bad. */
interface Limits {
  readonly goodFrom?: number;
  readonly warnFrom?: number;
  readonly badFrom?: number;
}

/** One number, with its curve behind it unless that says nothing. */
export function stat(
  panel: PanelText & Limits & { readonly decimals?: number; readonly curve?: boolean },
): StatBuilder {
  const builder = new StatBuilder()
    .title(panel.title)
    .description(panel.description)
    .datasource(DATA_SOURCE)
    .height(STAT_HEIGHT)
    .span(panel.width)
    .unit(panel.unit)
    .targets(targets(panel.queries))
    // Where nothing was counted yet, there is nothing.
    .noValue('0')
    .colorMode(BigValueColorMode.Value)
    .graphMode(panel.curve === false ? BigValueGraphMode.None : BigValueGraphMode.Area)
    .reduceOptions(new ReduceDataOptionsBuilder().calcs(['lastNotNull']))
    .colorScheme(new FieldColorBuilder().mode(FieldColorModeId.Thresholds))
    .thresholds(new ThresholdsConfigBuilder().mode(ThresholdsMode.Absolute).steps(steps(panel)));
  return panel.decimals === undefined ? builder : builder.decimals(panel.decimals);
}

/** A row of colour per series over time: 1 is good and 0 is bad. */
export function timeline(
  panel: Omit<PanelText, 'unit'> & { readonly yes: string; readonly no: string },
): TimelineBuilder {
  const words: ValueMap = {
    type: MappingType.ValueToText,
    options: {
      '0': { text: panel.no, color: BAD, index: 0 },
      '1': { text: panel.yes, color: GOOD, index: 1 },
    },
  };
  return new TimelineBuilder()
    .title(panel.title)
    .description(panel.description)
    .datasource(DATA_SOURCE)
    .height(GRAPH_HEIGHT)
    .span(panel.width)
    .unit('none')
    .targets(targets(panel.queries))
    .mappings([words])
    .mergeValues(true)
    .lineWidth(0)
    .fillOpacity(70)
    .colorScheme(new FieldColorBuilder().mode(FieldColorModeId.Thresholds))
    .legend(
      new VizLegendOptionsBuilder()
        .displayMode(LegendDisplayMode.List)
        .placement(LegendPlacement.Bottom)
        .showLegend(false),
    );
}

function targets(queries: readonly Query[]): Builder<Dataquery>[] {
  return queries.map(({ expr, legend }, index) =>
    new DataqueryBuilder()
      .refId(String.fromCharCode('A'.charCodeAt(0) + index))
      .datasource(DATA_SOURCE)
      .expr(expr)
      .legendFormat(legend)
      .range(),
  );
}

function steps(limits: Limits): { value: number | null; color: string }[] {
  const { goodFrom, warnFrom, badFrom } = limits;
  if (goodFrom !== undefined) {
    return [
      { value: null, color: BAD },
      { value: goodFrom, color: GOOD },
    ];
  }
  return [
    { value: null, color: GOOD },
    ...(warnFrom === undefined ? [] : [{ value: warnFrom, color: WARNING }]),
    ...(badFrom === undefined ? [] : [{ value: badFrom, color: BAD }]),
  ];
}
