// Each error names the key, the value and what is allowed; the printed configuration reads back.

import assert from 'node:assert/strict';
import { isFailure } from '@cribus/contracts/failure.ts';
import { describe, it } from 'mocha';
import { parseConfig } from './config.ts';
import { configReference, configText } from './config-reference.ts';

const ERRORS: readonly (readonly [text: string, message: string])[] = [
  [
    '[runtimes.handlers.gvisor]\nfamily = "kata"\nengine = "runsc"',
    'c.toml: runtimes.handlers.gvisor.family = "kata": must be one of runc, gvisor',
  ],
  [
    '[runtimes.handlers.runc]\nfamily = "runc"',
    'c.toml: runtimes.handlers.runc.engine: is missing',
  ],
  [
    '[runtimes.handlers.runc]\nfamily = "runc"\nengine = "runc"\nbinary = "x"',
    'c.toml: runtimes.handlers.runc.binary: there is no such key; allowed are family, engine, platform, network, image_platform, extra_args, pod_annotations, container_annotations',
  ],
  ['[nat]\nurl = ""', 'c.toml: nat: there is no such key; allowed are node, paths, nats, redis, '],
  ['[nats]\nurl = 7', 'c.toml: nats.url = 7: must be a text in quotes'],
  [
    '[nats]\nurl = "x://u:pw@h"',
    'c.toml: nats.url = "x://…@h": must be empty or begin with nats://',
  ],
  [
    '[gateway]\nstreaming_port = 70000',
    'c.toml: gateway.streaming_port = 70000: must be 0 to 65535',
  ],
  [
    '[gateway]\nstreaming_port = 1.5',
    'c.toml: gateway.streaming_port = 1.5: must be a whole number',
  ],
  ['[cni]\nbin_dirs = ["bin"]', 'c.toml: cni.bin_dirs.0 = "bin": must be an absolute path'],
  ['[cni]\nbin_dirs = "/bin"', 'c.toml: cni.bin_dirs = "/bin": must be a list in brackets'],
  ['log = "debug"', 'c.toml: log = "debug": must be a table'],
  ['[log]\nlevel = "loud"', 'c.toml: log.level = "loud": must be one of trace, debug, info, '],
  [
    '[runtimes]\ndefault = "x"',
    'c.toml: runtimes.default = "x": must be one of the handlers runc, ',
  ],
  [
    '[runtimes.handlers.kvm]\nfamily = "gvisor"\nengine = "runsc"',
    'must be one of the handlers kvm; your tables replace the built-in runc, crun and gvisor',
  ],
  ['[runtimes.handlers."a b"]\nfamily = "runc"\nengine = "runc"', 'must be 1 to 63 of A-Z a-z'],
  ['[nats]\nurl = ', 'c.toml:2: '],
];

describe('config', () => {
  for (const [text, message] of ERRORS) {
    it(`says of ${JSON.stringify(text)}: ${message}`, () => {
      assert.throws(
        () => parseConfig(text, { file: 'c.toml' }),
        (error) => {
          assert(isFailure(error, 'invalid_argument'));
          assert.ok(error.message.includes(message), error.message);
          return true;
        },
      );
    });
  }

  it('puts everything below --root, and what the text says where it says', () => {
    const config = parseConfig('[paths]\nlog = "/l"', { file: 'c.toml', directory: '/r' });
    assert.deepEqual(config.roots, { run: '/r/run', state: '/r/state', etc: '/r/etc', log: '/l' });
    assert.equal(config.gateway.socket, '/r/run/cribus.sock');
    assert.equal(config.cni.conf_dir, '/r/etc/cni/net.d');
    assert.equal(parseConfig('', { file: 'c.toml' }).cni.conf_dir, '/etc/cni/net.d');
    assert.equal(config.runtimes.handlers['gvisor']?.network, 'auto');
    assert.ok(Object.isFrozen(config) && Object.isFrozen(config.runtimes.handlers));
  });

  it('prints every key with its sentence, readable as the same configuration', () => {
    const text =
      '[runtimes.handlers."a.b"]\nfamily = "runc"\nengine = "/x y/\\"q"\n[runtimes]\ndefault = "a.b"\n[metrics.ports]\ncri-gateway = 9100';
    const config = parseConfig(text, { file: 'c.toml', directory: '/r' });
    for (const documented of [true, false]) {
      const printed = configText(config, { documented });
      assert.deepEqual(parseConfig(printed, { file: 'printed' }), config);
      assert.equal(printed.includes('# '), documented);
    }
    const reference = configReference();
    assert.deepEqual(
      parseConfig(reference, { file: 'reference' }),
      parseConfig('', { file: 'empty' }),
    );
    const keys = reference.split('\n').filter((line) => /^[a-z_]+ =/.test(line));
    const explained = reference.split('\n').filter((line) => line.startsWith('# '));
    // The handlers' keys are explained once, and so are the tables of handlers and ports.
    assert.equal(explained.length, keys.length - 2 * 8 + 2);
  });
});
