// No secret gets into a log line, wherever it hides.

import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { createTestLog } from './testing/fake-service.ts';

describe('log', () => {
  it('redacts secrets by key at any depth, in bound fields, and in URLs', () => {
    const { log, lines } = createTestLog();
    const secret = 'hunter2';
    const auth = { username: 'u', password: secret, identityToken: secret };
    log.child({ headers: [{ Authorization: `Basic ${secret}` }], token: secret }).info(
      {
        request: { image: { image: 'busybox' }, auth },
        nested: new Map([['a', { 'x-registry-auth': secret }]]),
        url: `nats://me:${secret}@127.0.0.1:4222`,
        error: new Error(`GET https://u:${secret}@registry/v2/ failed`, {
          cause: { secret },
        }),
      },
      `asked redis://:${secret}@host`,
    );
    const text = JSON.stringify(lines);
    assert.equal(text.includes(secret), false, text);
    assert.match(text, /busybox/);
    assert.match(text, /nats:\/\/\[redacted\]@127\.0\.0\.1:4222/);
  });

  it('writes bigints, errors with their cause, and the level as a word', () => {
    const { log, lines } = createTestLog();
    const cause = Object.assign(new Error('no such file'), { code: 'ENOENT' });
    log.warn({ sizeBytes: 2n ** 60n, error: new Error('outer', { cause }) }, 'hm');
    const [line] = lines;
    assert.equal(line?.['level'], 'warn');
    assert.equal(line?.['sizeBytes'], '1152921504606846976');
    assert.equal(line?.['message'], 'hm');
    assert.match(String(line?.['time']), /^\d{4}-\d\d-\d\dT/);
    const error = line?.['error'] as { text: string; cause: { code: string } };
    assert.equal(error.text, 'outer');
    assert.equal(error.cause.code, 'ENOENT');
  });
});
