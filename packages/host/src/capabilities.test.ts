import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { boundingCapabilities, oomScoreAdjFloor } from './capabilities.ts';
import { run } from './spawn.ts';

describe('capabilities', () => {
  it('names what the bounding set holds, as capsh does', async () => {
    const names = boundingCapabilities();
    assert.ok(names.includes('CAP_CHOWN') && names.every((name) => name.startsWith('CAP_')));
    const args = ['-n', '^CapBnd', '/proc/self/status'];
    const status = await run({ command: 'grep', args, signal: AbortSignal.timeout(5000) });
    const bits = BigInt(`0x${status.stdout.toString().split('\t')[1]?.trim()}`);
    assert.equal(names.length, bits.toString(2).replaceAll('0', '').length);
  });

  it('gives a floor that a child really takes', async () => {
    const script = `echo ${oomScoreAdjFloor()} > /proc/self/oom_score_adj`;
    const args = ['-c', script];
    const result = await run({ command: 'sh', args, signal: AbortSignal.timeout(5000) });
    assert.equal(result.exitCode, 0, result.stderr.toString());
  });
});
