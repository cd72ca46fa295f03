import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { boundingCapabilities, oomScoreAdjFloor } from './capabilities.ts';
import { run } from './spawn.ts';

describe('capabilities', () => {
  it('names what the bounding set holds, by the kernel’s numbers', async () => {
    const numbers = Array.from({ length: 64 }, (_, number) => String(number));
    const held = boundingCapabilities(numbers);
    const args = ['-n', '^CapBnd', '/proc/self/status'];
    const status = await run({ command: 'grep', args, signal: AbortSignal.timeout(5000) });
    const bits = BigInt(`0x${status.stdout.toString().split('\t')[1]?.trim()}`);
    assert.equal(
      held.reduce((sum, number) => sum | (1n << BigInt(number)), 0n),
      bits,
    );
    assert.ok(held.length > 0);
  });

  it('gives a floor that a child really takes', async () => {
    const script = `echo ${oomScoreAdjFloor()} > /proc/self/oom_score_adj`;
    const args = ['-c', script];
    const result = await run({ command: 'sh', args, signal: AbortSignal.timeout(5000) });
    assert.equal(result.exitCode, 0, result.stderr.toString());
  });
});
