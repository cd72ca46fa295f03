import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mountOverlay, unmount } from '@cribus/host/mounts.ts';
import { describe, it } from 'mocha';
import { whyNoUserNamespaces } from './idmap-trial.ts';

describe('the trial of user namespaces', () => {
  it('passes where layers can be mapped, says why where not, and leaves nothing', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'trial-'));
    const at = (name: string) => join(directory, name);
    const signal = AbortSignal.timeout(10_000);
    for (const name of ['a', 'b', 'upper', 'work', 'overlay']) mkdirSync(at(name));
    try {
      assert.equal(await whyNoUserNamespaces({ directory: at('a'), signal }), undefined);
      assert.deepEqual(readdirSync(at('a')), []);
      // An overlay itself can't be mapped, so layers can't lie on one.
      const layers = { layersDirectory: directory, layerNames: ['a', 'b'] };
      mountOverlay({ target: at('overlay'), ...layers, upper: at('upper'), work: at('work') });
      const why = await whyNoUserNamespaces({ directory: at('overlay'), signal });
      assert.match(why ?? '', /^EINVAL: mount_setattr .*layers' with mapped owners \(overlay\)$/);
      assert.deepEqual(readdirSync(at('overlay')), []);
    } finally {
      unmount(at('overlay'));
      rmSync(directory, { recursive: true });
    }
  });
});
