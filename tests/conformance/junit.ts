// What critest's JUnit report says of each spec.

export type Outcome = 'passed' | 'failed' | 'skipped';

export interface SpecResult {
  /** As ginkgo joins it, without `[It]` and `[k8s.io]`. */
  readonly name: string;
  readonly outcome: Outcome;
  readonly seconds: number;
  /** Why it failed or was skipped, on one line; empty for one that passed. */
  readonly message: string;
}

const MESSAGE_CHARACTERS_MAX = 400;
const ENTITIES: Readonly<Record<string, string>> = {
  amp: '&',
  lt: '<',
  gt: '>',
  quot: '"',
  apos: "'",
};

/**
 * The specs of a report by name. One that a filter left out is none; a set-up or tear-down node counts
 * where it failed. Raises an Error for a text that is no report.
 */
export function readJunit(xml: string): SpecResult[] {
  if (!/<testsuites?\b/.test(xml)) throw new Error('critest wrote no JUnit report');
  const results: SpecResult[] = [];
  for (const match of xml.matchAll(/<testcase\b([^>]*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g)) {
    const [, head = '', body = ''] = match;
    const result = readCase(attributes(head), body);
    if (result !== undefined) results.push(result);
  }
  return results.sort((a, b) => (a.name < b.name ? -1 : 1));
}

function readCase(head: Readonly<Record<string, string>>, body: string): SpecResult | undefined {
  const { name = '', status = '', time = '0' } = head;
  const outcome = status === 'passed' || status === 'skipped' ? status : 'failed';
  if (!name.startsWith('[It]') && outcome !== 'failed') return undefined;
  const reason = /<(?:failure|error|skipped)\b([^>]*)/.exec(body)?.[1] ?? '';
  // gomega's print of the error object follows the sentence that holds all of it.
  const [sentence = ''] = (attributes(reason)['message'] ?? '').split('Unexpected error:');
  const message = sentence.replaceAll(/\s+/g, ' ').trim();
  // One that a filter left out, as --focus does, and critest itself with its benchmarks.
  if (outcome === 'skipped' && message === 'skipped') return undefined;
  return {
    name: name.replace(/^\[It\] /, '').replace(/^\[k8s\.io\] /, ''),
    outcome,
    seconds: Number(time),
    message: outcome === 'passed' ? '' : message.slice(0, MESSAGE_CHARACTERS_MAX),
  };
}

function attributes(text: string): Record<string, string> {
  const found = [...text.matchAll(/([\w-]+)="([^"]*)"/g)];
  return Object.fromEntries(found.map(([, key = '', value = '']) => [key, unescapeXml(value)]));
}

function unescapeXml(text: string): string {
  return text.replaceAll(/&(?:#(x?)([0-9a-fA-F]+)|(\w+));/g, (whole, hex, number, name) => {
    if (name !== undefined) return ENTITIES[name] ?? whole;
    return String.fromCodePoint(Number.parseInt(number, hex === 'x' ? 16 : 10));
  });
}
