import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { parseCounters } from './pull-progress.ts';

describe('the progress of a pull', () => {
  it('is read from two counters of the image service, with labels or without', () => {
    const text = `# HELP cribus_pull_bytes_total Compressed bytes of layers received.
# TYPE cribus_pull_bytes_total counter
cribus_pull_bytes_total 1.5e+3
cribus_pull_expected_bytes_total{service="image-service"} 4096
`;
    assert.deepEqual(parseCounters(text), { received: 1_500, expected: 4_096 });
    assert.equal(parseCounters('cribus_pull_bytes_total 1\n'), undefined);
  });
});
