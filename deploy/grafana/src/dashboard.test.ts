// The committed dashboard is the one that the code makes, and says something in every place.
// UPDATE_GENERATED=1 writes it.

import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, it } from 'mocha';
import { nodeDashboard } from './dashboard.ts';

const grafana = dirname(dirname(fileURLToPath(import.meta.url)));
const file = join(grafana, 'cribus.json');
const text = `${JSON.stringify(nodeDashboard(), undefined, 2)}\n`;

interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly description?: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number };
  readonly fieldConfig?: { readonly defaults: { readonly unit?: string } };
  readonly targets?: readonly { readonly expr: string; readonly legendFormat: string }[];
}

const panels = (JSON.parse(text) as { panels: Panel[] }).panels;
const shown = panels.filter((panel) => panel.type !== 'row');

describe('the dashboard', () => {
  it('is committed as the code makes it', async () => {
    if (process.env['UPDATE_GENERATED'] !== undefined) await writeFile(file, text);
    assert.equal(await readFile(file, 'utf8'), text, 'UPDATE_GENERATED=1 npm run unit writes it');
  });

  it('says in every panel what it is, in which unit, and what its series are', () => {
    assert.ok(shown.length >= 30, `saw only ${shown.length} panels`);
    for (const panel of shown) {
      assert.ok(panel.description?.endsWith('.'), `${panel.title} has no description`);
      assert.ok(panel.fieldConfig?.defaults.unit, `${panel.title} has no unit`);
      assert.ok((panel.targets ?? []).length > 0, `${panel.title} has no query`);
      for (const { legendFormat } of panel.targets ?? []) assert.notEqual(legendFormat, '');
    }
    assert.equal(new Set(panels.map((panel) => panel.id)).size, panels.length);
  });

  it('fills its rows to the edge', () => {
    const widths = new Map<number, number>();
    for (const { gridPos } of panels) {
      widths.set(gridPos.y, (widths.get(gridPos.y) ?? 0) + gridPos.w);
    }
    assert.deepEqual([...new Set(widths.values())], [24]);
  });

  it('asks only for metrics that the reference lists', async () => {
    const reference = await readFile(join(grafana, '../../docs/reference/metrics.md'), 'utf8');
    const listed = new Set([...reference.matchAll(/^\| `(\w+)`/gm)].map((match) => match[1]));
    const asked = shown
      .flatMap((panel) => panel.targets ?? [])
      .flatMap(({ expr }) => expr.match(/\b(cribus|process|nodejs)_\w+(?=[{[])/g) ?? []);
    assert.ok(asked.length > 40, `saw only ${asked.length} metrics in queries`);
    for (const name of asked) {
      const family = name.replace(/_(bucket|count|sum)$/, '');
      assert.ok(listed.has(name) || listed.has(family), `${name} is not in the reference`);
    }
  });
});
