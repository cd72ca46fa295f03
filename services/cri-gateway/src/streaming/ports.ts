// Ports as texts, in headers and queries.

export const PORT_MAX = 65_535;

/** The port that a text says in decimal digits; undefined where it says none. */
export function parsePort(text: string): number | undefined {
  const port = /^[0-9]{1,5}$/.test(text) ? Number(text) : 0;
  return port >= 1 && port <= PORT_MAX ? port : undefined;
}
