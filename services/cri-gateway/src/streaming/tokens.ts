// The streams that were asked for and that nobody has come for yet, by their single-use token.

import { randomBytes } from 'node:crypto';
import { Failure } from '@cribus/contracts/failure.ts';
import type { Clock } from '@cribus/host/clock.ts';

/** As CRI's reference server has it (cri-streaming, request_cache.go). */
export const TOKEN_LIFE_MS = 60_000;
export const PENDING_MAX = 1_000;
const TOKEN_BYTES = 24;

export interface Tokens<Ask> {
  /** Raises limit when too many asks wait already. */
  issue(ask: Ask): string;
  /** The ask of a token, which is void from then on; undefined for one that is unknown or too old. */
  redeem(token: string): Ask | undefined;
}

export function createTokens<Ask>(clock: Clock): Tokens<Ask> {
  // In the order of their making, so the oldest come first.
  const pending = new Map<string, { readonly ask: Ask; readonly untilMs: number }>();
  const dropExpired = (): void => {
    for (const [token, { untilMs }] of pending) {
      if (untilMs > clock.monotonicMs()) return;
      pending.delete(token);
    }
  };
  return {
    issue(ask) {
      dropExpired();
      if (pending.size >= PENDING_MAX) {
        throw new Failure('limit', `${PENDING_MAX} streams wait for their client already`);
      }
      const token = randomBytes(TOKEN_BYTES).toString('base64url');
      pending.set(token, { ask, untilMs: clock.monotonicMs() + TOKEN_LIFE_MS });
      return token;
    },
    redeem(token) {
      dropExpired();
      const found = pending.get(token);
      pending.delete(token);
      return found?.ask;
    },
  };
}
