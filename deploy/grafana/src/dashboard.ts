// The dashboard of a node, or of many: pods and CRI calls as the kubelet sees them, then the ways
// inside (bus, engines, networks, registries), then the services themselves.

import {
  type Dashboard,
  DashboardBuilder,
  DashboardCursorSync,
  DatasourceVariableBuilder,
  QueryVariableBuilder,
  RowBuilder,
  VariableRefresh,
  VariableSort,
} from '@grafana/grafana-foundation-sdk/dashboard';
import { calls, overview, pods } from './cri-rows.ts';
import { bus, host, pulls, services } from './inner-rows.ts';
import { DATA_SOURCE } from './panels.ts';

/** The dashboard as Grafana imports it. */
export function nodeDashboard(): Dashboard {
  const builder = new DashboardBuilder('cribus')
    .uid('cribus')
    .description('Container runtime cribus: pods, CRI calls, and the parts that serve them.')
    .tags(['cribus', 'kubernetes', 'cri'])
    .timezone('browser')
    .time({ from: 'now-1h', to: 'now' })
    .refresh('30s')
    .tooltip(DashboardCursorSync.Crosshair)
    .editable()
    .withVariable(
      new DatasourceVariableBuilder('datasource').label('Prometheus').type('prometheus'),
    )
    .withVariable(
      chooser('node', {
        label: 'Node',
        description: 'As node.name of its configuration; by default the name of the machine.',
        query: 'label_values(up{job="cribus"}, node)',
      }),
    )
    .withVariable(
      chooser('service', {
        label: 'Service',
        description: 'Narrows the panels that are about services.',
        query: 'label_values(up{job="cribus", node=~"$node"}, service)',
      }),
    );
  for (const { title, panels } of [
    overview(),
    pods(),
    calls(),
    bus(),
    host(),
    pulls(),
    services(),
  ]) {
    builder.withRow(new RowBuilder(title));
    for (const panel of panels) builder.withPanel(panel);
  }
  return numbered(builder.build());
}

/** Panels need an id each, for links to them and for Grafana's own state. */
function numbered(dashboard: Dashboard): Dashboard {
  for (const [index, panel] of (dashboard.panels ?? []).entries()) panel.id = index + 1;
  return dashboard;
}

function chooser(
  name: string,
  options: { readonly label: string; readonly description: string; readonly query: string },
): QueryVariableBuilder {
  return new QueryVariableBuilder(name)
    .label(options.label)
    .description(options.description)
    .datasource(DATA_SOURCE)
    .query({ query: options.query, refId: name })
    .definition(options.query)
    .refresh(VariableRefresh.OnTimeRangeChanged)
    .sort(VariableSort.AlphabeticalAsc)
    .multi(true)
    .includeAll(true)
    .allValue('.*')
    .current({ selected: true, text: ['All'], value: ['$__all'] });
}
