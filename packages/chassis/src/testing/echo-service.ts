// A whole service for the test of runService: an owner whose verbs answer what they are told.

import { join } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import { DescribeResponse } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { runtimeOwner } from '@cribus/contracts/subjects.ts';
import { createOwner, openEpoch, type VerbTable } from '../owner.ts';
import { runService, type Service } from '../service.ts';

async function start(service: Service): Promise<void> {
  const directory = join(service.config.roots.state, 'echo');
  const epoch = await openEpoch(directory);
  const verbs: Partial<VerbTable<'runtime'>> = {
    describe: async ({ id }, context) => {
      if (id === 'refuse') throw new Failure('not_found', 'no such thing');
      if (id === 'hang up') setImmediate(() => Promise.reject(new Error('nobody caught me')));
      if (id === 'slow') await service.clock.sleep(700, context.signal);
      return DescribeResponse.fromPartial({ info: { id, epoch: String(epoch) } });
    },
  };
  const owner = createOwner({
    service,
    kind: 'runtime',
    name: runtimeOwner('echo'),
    directory,
    epoch,
    verbs: verbs as VerbTable<'runtime'>,
    stores: [],
    describe: () => ({}),
  });
  await owner.serve();
}

await runService('runtime-runc', start);
