// The image service: registries, layers and leases. Wiring only.

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createOwner, openEpoch } from '@cribus/chassis/owner.ts';
import { runService, type Service } from '@cribus/chassis/service.ts';
import { stackPaths } from '@cribus/contracts/paths.ts';
import { IMAGE_SERVICE } from '@cribus/contracts/subjects.ts';
import { lock } from '@cribus/host/files.ts';
import { createImageStore } from './image-store.ts';
import { createMeasuring } from './measuring.ts';
import { createPuller } from './pull.ts';
import { createPullMetrics } from './pull-progress.ts';
import { sweepForEver } from './sweep.ts';
import { describe } from './verbs/describe.ts';
import { endLease } from './verbs/end-lease.ts';
import { imageFsInfo } from './verbs/image-fs-info.ts';
import { pullImage } from './verbs/pull-image.ts';
import { removeImage } from './verbs/remove-image.ts';
import { takeLease } from './verbs/take-lease.ts';
import { createWritableLayers } from './writable-layers.ts';

await runService('image-service', start);

async function start(service: Service): Promise<void> {
  const directory = stackPaths(service.config.roots).images;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  // A second instance waits here as a standby, unsubscribed.
  const held = await lock(join(directory, 'lock'), service.stopping);
  service.onStop('unlock', () => held.close());
  const epoch = await openEpoch(directory);
  const store = createImageStore({ service, epoch, directory });
  await store.load();
  service.metrics.gauge(
    'cribus_objects',
    'Objects by kind and state.',
    ['kind', 'state'],
    (gauge) => {
      gauge.set({ kind: 'image', state: 'present' }, store.images.all().length);
      gauge.set({ kind: 'lease', state: 'held' }, store.leases.all().length);
    },
  );
  const pull = createPuller({ service, store, metrics: createPullMetrics(service.metrics) });
  const writableLayers = createWritableLayers(service);
  const measuring = createMeasuring({ service, store, writableLayers });
  const deps = { service, store, pull, writableLayers, measuring };
  const owner = createOwner({
    service,
    kind: 'image-service',
    name: IMAGE_SERVICE,
    epoch,
    directory,
    verbs: {
      'pull-image': pullImage(deps),
      'remove-image': removeImage(deps),
      'image-fs-info': imageFsInfo(deps),
      'take-lease': takeLease(deps),
      'end-lease': endLease(deps),
      describe: describe(deps),
    },
    stores: [store.images],
    describe: () => ({ details: { collected: store.collected.summary() } }),
  });
  await owner.serve();
  service.onStop('drain', () => owner.drain());
  service.background('sweep', sweepForEver(deps));
  service.background('measure', measuring.forEver());
}
