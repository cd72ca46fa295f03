// The bytes of one blob from one host: a transfer that broke or stalls is taken up where it was, as long
// as each try brings something new.

import { Failure } from '@cribus/contracts/failure.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { isTransient, type RegistryClient } from './client.ts';
import { Stalled } from './http.ts';
import type { Descriptor } from './manifest.ts';

/** How often one blob is taken up again at one host; each must have brought something new. */
const RESUMES_MAX = 20;
const RESUMES_WITHOUT_PROGRESS_MAX = 4;
const RESUME_PAUSE_MS = 300;

interface Wanted {
  /** At the host. */
  readonly path: string;
  readonly blob: Descriptor;
  readonly signal: AbortSignal;
}

interface Patience {
  readonly clock: Clock;
  /** So long without a byte is a stall. */
  readonly idleTimeoutMs: number;
}

/**
 * The bytes in order. Raises data_loss where there are more or fewer than the descriptor says,
 * RegistryUnavailable where the host can't be read on.
 */
export async function* readBlobFrom(
  client: RegistryClient,
  wanted: Wanted,
  patience: Patience,
): AsyncGenerator<Buffer> {
  const { blob, signal } = wanted;
  const { host } = client.host.base;
  let received = 0;
  let fruitless = 0;
  for (let resumes = 0; received < blob.sizeBytes || resumes === 0; resumes += 1) {
    const before = received;
    try {
      for await (const chunk of readFrom(client, { ...wanted, offset: received }, patience)) {
        received += chunk.length;
        if (received > blob.sizeBytes) {
          const why = `${blob.digest} is longer than its ${blob.sizeBytes} bytes`;
          throw new Failure('data_loss', why);
        }
        yield chunk;
      }
      if (received < blob.sizeBytes && (received === before || resumes >= RESUMES_MAX)) {
        throw new Failure(
          'data_loss',
          `${blob.digest} from ${host} is truncated: ${received} of ${blob.sizeBytes} bytes`,
        );
      }
    } catch (error) {
      signal.throwIfAborted();
      if (!isBrokenTransfer(error)) throw error;
      fruitless = received > before ? 0 : fruitless + 1;
      if (resumes >= RESUMES_MAX || fruitless >= RESUMES_WITHOUT_PROGRESS_MAX) {
        throw new Failure(
          'kubelet_reason',
          `RegistryUnavailable: ${host}: ${(error as Error).message} (${received} of ${blob.sizeBytes} bytes of ${blob.digest})`,
        );
      }
      await patience.clock.sleep(RESUME_PAUSE_MS * (fruitless + 1), signal);
    }
    if (blob.sizeBytes === 0) return;
  }
}

/** One transfer, from an offset to the end of the answer. */
async function* readFrom(
  client: RegistryClient,
  { path, offset, signal }: Wanted & { readonly offset: number },
  { clock, idleTimeoutMs }: Patience,
): AsyncGenerator<Buffer> {
  const headers = offset > 0 ? { range: `bytes=${offset}-` } : {};
  const response = await client.open({ path, headers, signal });
  // A server without ranges sends everything again.
  let skip = response.statusCode === 206 ? 0 : offset;
  let waitingSinceMs: number | undefined = clock.monotonicMs();
  const over = new AbortController();
  const watch = (async () => {
    while (!over.signal.aborted) {
      await clock.sleep(Math.min(1000, idleTimeoutMs / 4), over.signal);
      if (waitingSinceMs === undefined) continue;
      if (clock.monotonicMs() - waitingSinceMs < idleTimeoutMs) continue;
      response.destroy(new Stalled(`no byte for ${idleTimeoutMs / 1000} s`));
      return;
    }
  })();
  watch.catch(() => {});
  try {
    for await (const chunk of response) {
      waitingSinceMs = undefined;
      const data = chunk as Buffer;
      const fresh = data.subarray(Math.min(skip, data.length));
      skip -= data.length - fresh.length;
      if (fresh.length > 0) yield fresh;
      waitingSinceMs = clock.monotonicMs();
    }
  } finally {
    over.abort();
    response.destroy();
  }
}

function isBrokenTransfer(error: unknown): boolean {
  if (error instanceof Stalled || isTransient(error)) return true;
  return error instanceof Error && (error.message === 'aborted' || error.message === 'terminated');
}
