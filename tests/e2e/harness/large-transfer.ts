// One GiB through a stream and back: that it comes back whole, and that who relays it doesn't keep it.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { deferred } from '@cribus/cri-gateway/streaming/testing/deferred.ts';

export const GIB = 1024 * 1024 * 1024;
/** What a relay may grow by while a gibibyte goes through it. */
const GROWTH_MIB_MAX = 64;
/** What the first bytes load and warm up is no growth. */
const WARM_BYTES = GIB / 16;
const LOOK_EVERY_BYTES = 8 * 1024 * 1024;

/** `take` wants each piece that comes back; `pids` are the relays. */
export function watchLargeTransfer(pids: readonly number[]) {
  const digest = createHash('sha256');
  const whole = deferred();
  const first: number[] = [];
  let peaks = pids.map(() => 0);
  let received = 0;
  return {
    /** A GiB has come back. */
    whole: whole.promise,
    take(piece: Uint8Array): void {
      digest.update(piece);
      const before = received;
      received += piece.length;
      const passed = (bytes: number) => Math.floor(before / bytes) !== Math.floor(received / bytes);
      if (before < WARM_BYTES && received >= WARM_BYTES) first.push(...pids.map(residentMib));
      if (passed(LOOK_EVERY_BYTES)) {
        peaks = pids.map((pid, at) => Math.max(peaks[at] ?? 0, residentMib(pid)));
      }
      if (received >= GIB) whole.resolve();
    },
    async assertIntactAndFlat(sent: Promise<string>): Promise<void> {
      assert.equal(received, GIB);
      assert.equal(digest.digest('hex'), await sent);
      assert.equal(first.length, pids.length);
      for (const [at, peak] of peaks.entries()) {
        const growth = peak - (first[at] ?? 0);
        assert.ok(growth < GROWTH_MIB_MAX, `grew by ${growth} MiB to ${peak}`);
      }
    },
  };
}

/** The resident memory of a process in MiB (proc(5), VmRSS). */
function residentMib(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0) / 1024;
}
