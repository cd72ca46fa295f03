// The end of a container whose terminal conmon holds, and whose process it does not (relayed-stdio.ts):
// conmon is told of it by us, who ask the engine.

import { endRelays, holdsTerminal } from './relayed-stdio.ts';
import { placesOf, type Worker } from './worker.ts';

/** In the background, of a container that runs; nothing where conmon sees the end itself. */
export function tellEndOfTerminal(worker: Worker, id: string): void {
  const { bundle } = placesOf(worker, id);
  if (worker.driver.relayingCreate === undefined || !holdsTerminal(bundle)) return;
  const { service, engine } = worker;
  const told = engine
    .wait(id, service.stopping)
    .catch((error: unknown) => {
      // Whether it really is over is asked again before an exit is recorded.
      service.log.warn({ container: id, error: String(error) }, 'no word of its end');
    })
    .then(() => {
      if (!service.stopping.aborted) endRelays(bundle);
    });
  service.background(`terminal ${id}`, told);
}
