// What collections have freed since the start: a line in the log after each, metrics, and a sentence
// for the verbose status.

import type { Service } from '@cribus/chassis/service.ts';

export type CollectedKind = 'layer' | 'ingest' | 'blob' | 'lease';

export interface Collected {
  add(kind: CollectedKind, count: number, bytes: bigint): void;
  /** Logs what came since the last time, if anything did. */
  tell(): void;
  /** For a person: all since the start, and when it was last. */
  summary(): string;
}

const KINDS = ['layer', 'ingest', 'blob', 'lease'] as const satisfies readonly CollectedKind[];

export function createCollected(service: Pick<Service, 'clock' | 'log' | 'metrics'>): Collected {
  const things = service.metrics.counter(
    'cribus_images_collected_total',
    'What nothing named any more and was deleted, by kind.',
    ['kind'],
  );
  const freed = service.metrics.counter(
    'cribus_images_freed_bytes_total',
    'Bytes on the disk that collections freed.',
    [],
  );
  for (const kind of KINDS) things.inc({ kind }, 0);
  const total = noneYet();
  let news = noneYet();
  let lastAtNs = 0n;
  return {
    add(kind, count, bytes) {
      if (count === 0 && bytes === 0n) return;
      things.inc({ kind }, count);
      freed.inc(Number(bytes));
      for (const sum of [total, news]) {
        sum.counts[kind] += count;
        sum.bytes += bytes;
      }
      lastAtNs = service.clock.nowNs();
    },
    tell() {
      if (KINDS.every((kind) => news.counts[kind] === 0)) return;
      service.log.info({ ...news.counts, freed_bytes: news.bytes }, 'Freed what nothing names.');
      news = noneYet();
    },
    summary() {
      if (lastAtNs === 0n) return 'nothing since the start';
      const counts = KINDS.map((kind) => `${total.counts[kind]} ${kind}s`).join(', ');
      const at = new Date(Number(lastAtNs / 1_000_000n)).toISOString();
      return `${counts}: ${total.bytes} bytes since the start, last at ${at}`;
    },
  };
}

function noneYet(): { counts: Record<CollectedKind, number>; bytes: bigint } {
  return { counts: { layer: 0, ingest: 0, blob: 0, lease: 0 }, bytes: 0n };
}
