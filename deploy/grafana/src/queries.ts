// How series are chosen and folded: filters by the dashboard's variables, rates and quantiles.

/** Series of the chosen nodes. */
export const NODE = 'node=~"$node"';
/** Series of the chosen nodes and services. */
export const CHOSEN = `${NODE}, service=~"$service"`;
/** What the gateway shows to the kubelet; the owners export the same names for their own count. */
export const VIEW = `${NODE}, service="cri-gateway"`;

/** A quantile of a histogram, by some of its labels. */
export function quantile(
  q: number,
  histogram: string,
  filter: string,
  by: readonly string[],
): string {
  const labels = ['le', ...by].join(', ');
  return `histogram_quantile(${q}, sum by (${labels}) (rate(${histogram}_bucket{${filter}}[$__rate_interval])))`;
}

/** Median and 99th percentile beside each other. */
export function latencies(histogram: string, filter: string, by: readonly string[]) {
  const legend = by.map((label) => `{{${label}}}`).join(' ');
  return [
    { expr: quantile(0.5, histogram, filter, by), legend: `${legend} p50` },
    { expr: quantile(0.99, histogram, filter, by), legend: `${legend} p99` },
  ];
}

/** Per second, over all series that share these labels. */
export function rate(counter: string, filter: string, by: readonly string[]): string {
  return `sum by (${by.join(', ')}) (rate(${counter}{${filter}}[$__rate_interval]))`;
}
