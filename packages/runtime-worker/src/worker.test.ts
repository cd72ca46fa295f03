import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rootsBelow } from '@cribus/contracts/paths.ts';
import { describe, it } from 'mocha';
import { placesOf, type Worker, writableLayerOf } from './worker.ts';

describe('the writable layer of a container', () => {
  it('is where its version of cribus made it', () => {
    const root = mkdtempSync(join(tmpdir(), 'cribus-places-'));
    try {
      const service = { config: { roots: rootsBelow(root) } };
      const worker = { handler: 'runc', service } as unknown as Worker;
      const { directory } = placesOf(worker, 'c1');
      assert.equal(writableLayerOf(worker, 'c1'), join(directory, 'diff'));
      mkdirSync(join(directory, 'upper'), { recursive: true });
      assert.equal(writableLayerOf(worker, 'c1'), join(directory, 'upper'));
    } finally {
      rmSync(root, { recursive: true });
    }
  });
});
