import assert from 'node:assert/strict';
import { isFailure } from '@cribus/contracts/failure.ts';
import { type Clock, systemClock } from '@cribus/host/clock.ts';
import { describe, it } from 'mocha';
import { createTokens, PENDING_MAX, TOKEN_LIFE_MS } from './tokens.ts';

function clockAt(now: { ms: number }): Clock {
  return { ...systemClock, monotonicMs: () => now.ms };
}

describe('tokens of streams', () => {
  it('are at least 128 random bits, safe in a path, and good for one use', () => {
    const tokens = createTokens<string>(systemClock);
    const token = tokens.issue('ask');
    assert.match(token, /^[A-Za-z0-9_-]{22,}$/);
    assert.notEqual(token, tokens.issue('ask'));
    assert.equal(tokens.redeem(token), 'ask');
    assert.equal(tokens.redeem(token), undefined);
  });

  it('expire after a minute', () => {
    const now = { ms: 0 };
    const tokens = createTokens<string>(clockAt(now));
    const [early, late] = [tokens.issue('early'), tokens.issue('late')];
    now.ms = TOKEN_LIFE_MS - 1;
    assert.equal(tokens.redeem(early), 'early');
    now.ms = TOKEN_LIFE_MS;
    assert.equal(tokens.redeem(late), undefined);
  });

  it('are refused beyond a thousand that wait, until one is used or expires', () => {
    const now = { ms: 0 };
    const tokens = createTokens<number>(clockAt(now));
    const issued = Array.from({ length: PENDING_MAX }, (_, at) => tokens.issue(at));
    const isLimit = (error: unknown): boolean => isFailure(error, 'limit');
    assert.throws(() => tokens.issue(0), isLimit);
    tokens.redeem(issued[0] ?? '');
    tokens.issue(0);
    assert.throws(() => tokens.issue(0), isLimit);
    now.ms = TOKEN_LIFE_MS;
    tokens.issue(0);
  });
});
