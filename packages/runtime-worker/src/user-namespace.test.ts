import assert from 'node:assert/strict';
import { ContainerConfig, MountPropagation } from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { checkContainerMappings } from './user-namespace.ts';

describe('what a container of a pod with a user namespace may ask for', () => {
  const ids = [{ containerId: 0, hostId: 100_000, length: 65_536 }];
  const pod = { path: '/pin', uids: ids, gids: ids, root: { uid: 100_000, gid: 100_000 } };
  const mapped = { uidMappings: ids, gidMappings: ids };
  const check = (mount: object, inside = true) => {
    const config = ContainerConfig.fromPartial({ mounts: [{ containerPath: '/v', ...mount }] });
    checkContainerMappings('c', config, inside ? pod : undefined);
  };

  it('is no mount that propagates to the host, mapped or not', () => {
    const propagation = MountPropagation.PROPAGATION_BIDIRECTIONAL;
    for (const mappings of [{}, mapped]) {
      const mount = { propagation, ...mappings };
      assert.throws(() => check(mount), {
        kind: 'invalid_argument',
        message: /"\/v": nothing prop/,
      });
      check(mappings);
    }
    check({ propagation }, false);
  });
});
