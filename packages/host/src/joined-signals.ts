// A signal that aborts with the first of several others. AbortSignal.any would do it in a word, but what
// it makes stays with each source for as long as that lives (Node 22, lib/internal/abort_controller.js:
// an entry of a FinalizationRegistry per source, and the whole signal where one of them is a timer that
// fires), and most of ours live as long as the process.

export interface JoinedSignal {
  readonly signal: AbortSignal;
  /** Lets go of the sources: the signal aborts no more, and timers among them are forgotten. */
  release(): void;
}

/** Joins signals until `release`, which its caller owes; a source that has aborted already counts too. */
export function joinSignals(sources: readonly AbortSignal[]): JoinedSignal {
  const controller = new AbortController();
  const listeners = new Map<AbortSignal, () => void>();
  const release = (): void => {
    for (const [source, listener] of listeners) source.removeEventListener('abort', listener);
    listeners.clear();
  };
  for (const source of new Set(sources)) {
    if (source.aborted) {
      release();
      controller.abort(source.reason);
      break;
    }
    const onAbort = (): void => {
      release();
      controller.abort(source.reason);
    };
    listeners.set(source, onAbort);
    source.addEventListener('abort', onAbort, { once: true });
  }
  return { signal: controller.signal, release };
}

/** Joins signals for as long as the work runs. */
export async function withJoinedSignal<T>(
  sources: readonly AbortSignal[],
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const { signal, release } = joinSignals(sources);
  try {
    return await work(signal);
  } finally {
    release();
  }
}
