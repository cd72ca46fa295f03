import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { checkKernel, pluginsIn } from './host-checks.ts';

describe('the checks of a host', () => {
  it('tell an old kernel from a new one', () => {
    assert.equal(checkKernel('6.1.0-13-amd64').level, 'ok');
    assert.equal(checkKernel('5.12.0').level, 'ok');
    assert.equal(checkKernel('5.4.0-150-generic').level, 'warning');
    assert.equal(checkKernel('4.19.0').level, 'warning');
  });

  it('name the plugins of a network, each once', () => {
    const bridge = { type: 'bridge', ipam: { type: 'host-local' } };
    assert.deepEqual(pluginsIn(JSON.stringify({ plugins: [bridge, { type: 'portmap' }] })), [
      'bridge',
      'host-local',
      'portmap',
    ]);
    assert.deepEqual(pluginsIn(JSON.stringify({ ...bridge, type: 'host-local' })), ['host-local']);
    assert.deepEqual(pluginsIn('no JSON'), []);
  });
});
