// The one configuration of a stack: a TOML file, this schema, and the errors a person gets for it.

import { Failure } from '@cribus/contracts/failure.ts';
import { type Roots, rootsBelow, SYSTEM_ROOTS } from '@cribus/contracts/paths.ts';
import { parse as parseToml, TomlError } from 'smol-toml';
import * as v from 'valibot';
import { describeIssue } from './config-errors.ts';

/** A key's schema with the sentence that `cribus config --reference` prints above it. */
function key<const S extends v.GenericSchema>(schema: S, about: string) {
  return v.pipe(schema, v.description(about));
}

function oneOf<const T extends readonly [string, ...string[]]>(...values: T) {
  return v.picklist(values, `must be one of ${values.join(', ')}`);
}

function within(min: number, max: number) {
  const message = `must be ${min} to ${max}`;
  return v.pipe(v.number(), v.minValue(min, message), v.maxValue(max, message));
}

function wholeWithin(min: number, max: number) {
  return v.pipe(within(min, max), v.integer('must be a whole number'));
}

function urlOf(...schemes: readonly string[]) {
  const starts = schemes.map((scheme) => `${scheme}://`);
  return v.pipe(
    v.string(),
    v.check(
      (text) => text === '' || starts.some((start) => text.startsWith(start)),
      `must be empty or begin with ${starts.join(' or ')}`,
    ),
  );
}

const absolutePath = v.pipe(v.string(), v.regex(/^\//, 'must be an absolute path'));
const absolutePathOrNone = v.pipe(
  v.string(),
  v.regex(/^(\/.*)?$/, 'must be an absolute path or empty'),
);
const port = wholeWithin(0, 65_535);
const name = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9._-]{1,63}$/, 'must be 1 to 63 of A-Z a-z 0-9 . _ -'),
);
const texts = v.array(v.string());

export const RuntimeHandlerSchema = v.strictObject({
  family: key(oneOf('runc', 'gvisor'), 'Which driver: runc for runc and crun, gvisor for runsc.'),
  engine: key(v.string(), 'The engine: an absolute path, or a name on PATH.'),
  platform: v.optional(
    key(v.string(), "gVisor's --platform, as systrap, ptrace or kvm. Empty: found by trial."),
    '',
  ),
  network: v.optional(
    key(
      oneOf('auto', 'sandbox', 'host'),
      "gVisor's --network: auto tries sandbox (netstack), then host in the pod's own network namespace.",
    ),
    'auto',
  ),
  image_platform: v.optional(
    key(
      v.pipe(
        v.string(),
        v.regex(
          /^(?:[a-z0-9]+\/[a-z0-9_]+(?:\/v[0-9]+)?)?$/,
          'must be empty or like linux/arm64 or linux/arm/v7',
        ),
      ),
      "Platform of this handler's images, as linux/arm64 or linux/arm/v7. Empty: this machine's.",
    ),
    '',
  ),
  extra_args: v.optional(
    key(texts, 'Further options in front of every command of the engine.'),
    [],
  ),
  pod_annotations: v.optional(
    key(texts, 'Pod annotations handed to the engine, exact or with a final *; none by default.'),
    [],
  ),
  container_annotations: v.optional(key(texts, 'The same for annotations of containers.'), []),
});

/** All or none of them: a node may have to be without one. */
const BUILT_IN_HANDLERS = {
  runc: { family: 'runc', engine: 'runc' },
  crun: { family: 'runc', engine: 'crun' },
  gvisor: { family: 'gvisor', engine: 'runsc' },
} as const;

export const ConfigSchema = v.strictObject({
  node: v.optional(
    v.strictObject({
      name: v.optional(key(name, 'Names the node in the subjects of the bus.'), 'node'),
    }),
    {},
  ),
  paths: v.optional(
    v.strictObject({
      run: v.optional(key(absolutePath, 'Sockets, namespace pins, mounts: gone after a reboot.')),
      state: v.optional(key(absolutePath, 'Records, layers, exit files: kept.')),
      etc: v.optional(key(absolutePath, 'Configuration that a person writes.')),
      log: v.optional(key(absolutePath, 'JSON logs of the services.')),
    }),
    {},
  ),
  nats: v.optional(
    v.strictObject({
      url: v.optional(
        key(
          urlOf('nats', 'tls'),
          'nats://host:port, with user:password@ where the server wants them. Empty: `cribus up` starts its own.',
        ),
        '',
      ),
      credentials_dir: v.optional(
        key(v.string(), 'Directory with one <service>.nk nkey seed each. Empty: none are used.'),
        '',
      ),
    }),
    {},
  ),
  redis: v.optional(
    v.strictObject({
      url: v.optional(
        key(
          urlOf('redis', 'rediss', 'unix'),
          'redis://host:port, or unix:///path. Empty: `cribus up` starts its own.',
        ),
        '',
      ),
      credentials_dir: v.optional(
        key(
          v.string(),
          "Directory with one <service>.redis password each; the user has the service's name.",
        ),
        '',
      ),
    }),
    {},
  ),
  gateway: v.optional(
    v.strictObject({
      socket: v.optional(key(absolutePath, 'The CRI endpoint; cribus.sock in paths.run.')),
      streaming_address: v.optional(
        key(v.string(), 'Where exec, attach and port-forward streams are served.'),
        '127.0.0.1',
      ),
      streaming_port: v.optional(key(port, '0: any free port.'), 0),
      streaming_idle_timeout_s: v.optional(
        key(within(1, 604_800), 'A stream on which nothing goes either way ends then; seconds.'),
        14_400,
      ),
    }),
    {},
  ),
  cni: v.optional(
    v.strictObject({
      conf_dir: v.optional(key(absolutePath, 'Network configurations (*.conflist, *.conf).')),
      bin_dirs: v.optional(key(v.array(absolutePath), 'Where plugins are looked for, in order.'), [
        '/opt/cni/bin',
        '/usr/lib/cni',
      ]),
      fallback_conf_dir: v.optional(
        key(
          v.string(),
          'Used while conf_dir holds no configuration; set by `cribus up`, never under systemd.',
        ),
        '',
      ),
      add_timeout_s: v.optional(key(within(1, 600), 'For the whole ADD of a pod; seconds.'), 120),
    }),
    {},
  ),
  images: v.optional(
    v.strictObject({
      certs_dir: v.optional(
        key(absolutePath, "Registries, in containerd's layout: <host>/hosts.toml."),
      ),
      max_parallel_downloads: v.optional(
        key(wholeWithin(1, 32), 'Layers downloaded at once, over all pulls.'),
        6,
      ),
      max_parallel_unpacks: v.optional(
        key(wholeWithin(1, 16), 'Layers unpacked at once, over all pulls.'),
        2,
      ),
      progress_timeout_s: v.optional(
        key(within(1, 3600), 'A pull fails when no byte arrives for so long; seconds.'),
        60,
      ),
      verifier: v.optional(
        key(
          absolutePathOrNone,
          'A program that must agree to each image before it is fetched (docs/image-verification.md). Empty: none.',
        ),
        '',
      ),
      verifier_timeout_s: v.optional(
        key(within(1, 600), 'It is killed, and the image refused, after so long; seconds.'),
        10,
      ),
      pinned: v.optional(
        key(texts, "Kept from the kubelet's garbage collection; exact or with a final *."),
        [],
      ),
    }),
    {},
  ),
  runtimes: v.optional(
    v.strictObject({
      default: v.optional(key(name, 'The handler of a pod that names none.'), 'runc'),
      handlers: v.optional(
        key(
          v.record(name, RuntimeHandlerSchema),
          'One table for each handler that a RuntimeClass may name. Tables of yours replace the built-in runc, crun and gvisor: write those down too that you keep.',
        ),
        BUILT_IN_HANDLERS,
      ),
    }),
    {},
  ),
  cdi: v.optional(
    v.strictObject({
      spec_dirs: v.optional(
        key(
          v.array(absolutePath),
          'Where CDI spec files (*.json, *.yaml) are read at each use; a later directory has precedence.',
        ),
        ['/etc/cdi', '/var/run/cdi'],
      ),
    }),
    {},
  ),
  cgroups: v.optional(
    v.strictObject({
      driver: v.optional(
        key(oneOf('cgroupfs', 'systemd'), "Must be the kubelet's too."),
        'cgroupfs',
      ),
      root: v.optional(
        key(v.string(), 'Where monitors go, and containers without a cgroup parent.'),
        '/cribus',
      ),
    }),
    {},
  ),
  kubelet: v.optional(
    v.strictObject({
      cadvisor_socket: v.optional(
        key(
          absolutePathOrNone,
          "Where the kubelet's cAdvisor asks for containers: it knows /var/run/crio/crio.sock only. Empty: nowhere, and cgroups have no name that it knows.",
        ),
        '',
      ),
    }),
    {},
  ),
  metrics: v.optional(
    v.strictObject({
      address: v.optional(
        key(v.string(), 'Where /metrics, /healthz and /readyz are served.'),
        '127.0.0.1',
      ),
      ports: v.optional(
        key(v.record(name, port), 'By service; 0 or absent: any free port, said in the log.'),
        {},
      ),
    }),
    {},
  ),
  log: v.optional(
    v.strictObject({
      level: v.optional(
        key(oneOf('trace', 'debug', 'info', 'warn', 'error'), 'The least level that is written.'),
        'info',
      ),
    }),
    {},
  ),
  monitor: v.optional(
    v.strictObject({
      conmon: v.optional(key(v.string(), 'conmon: an absolute path, or a name on PATH.'), 'conmon'),
    }),
    {},
  ),
});

type Parsed = v.InferOutput<typeof ConfigSchema>;
export type HandlerConfig = v.InferOutput<typeof RuntimeHandlerSchema>;

/** The effective configuration: every default filled in, frozen. */
export type Config = Omit<Parsed, 'paths' | 'gateway' | 'cni' | 'images'> & {
  readonly roots: Roots;
  readonly gateway: Parsed['gateway'] & { readonly socket: string };
  readonly cni: Parsed['cni'] & { readonly conf_dir: string };
  readonly images: Parsed['images'] & { readonly certs_dir: string };
};

/**
 * Parses a configuration text. `directory` is `--root DIR`: every path that the text leaves open is
 * below it, else in the system's places. Raises invalid_argument naming the key, the value and
 * what is allowed.
 */
export function parseConfig(
  text: string,
  options: { file: string; directory?: string | undefined },
): Config {
  let raw: unknown;
  try {
    raw = parseToml(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    throw new Failure(
      'invalid_argument',
      `${options.file}:${error.line}: ${error.message.split('\n')[0]}`,
    );
  }
  const result = v.safeParse(ConfigSchema, raw);
  if (!result.success) {
    const lines = result.issues.map((issue) => describeIssue(ConfigSchema, issue));
    throw new Failure('invalid_argument', `${options.file}: ${lines.join('; ')}`);
  }
  requireDefaultHandler(result.output.runtimes, options.file);
  return complete(result.output, options.directory);
}

function requireDefaultHandler(runtimes: Parsed['runtimes'], file: string): void {
  const handlers = Object.keys(runtimes.handlers);
  if (handlers.includes(runtimes.default)) return;
  const value = JSON.stringify(runtimes.default);
  const allowed = handlers.join(', ') || '(there are none)';
  // Who adds one handler expects the others to stay.
  const replaced = Object.keys(BUILT_IN_HANDLERS).some((built) => !handlers.includes(built));
  const hint = replaced
    ? '; your tables replace the built-in runc, crun and gvisor: copy those that you keep from ' +
      '"cribus config --config /dev/null"'
    : '';
  throw new Failure(
    'invalid_argument',
    `${file}: runtimes.default = ${value}: must be one of the handlers ${allowed}${hint}`,
  );
}

function complete(parsed: Parsed, directory: string | undefined): Config {
  const base = directory === undefined ? SYSTEM_ROOTS : rootsBelow(directory);
  const { paths, ...rest } = parsed;
  const roots: Roots = {
    run: paths.run ?? base.run,
    state: paths.state ?? base.state,
    etc: paths.etc ?? base.etc,
    log: paths.log ?? base.log,
  };
  return deepFreeze({
    ...rest,
    roots,
    gateway: { ...parsed.gateway, socket: parsed.gateway.socket ?? `${roots.run}/cribus.sock` },
    cni: {
      ...parsed.cni,
      conf_dir:
        parsed.cni.conf_dir ??
        (directory === undefined ? '/etc/cni/net.d' : `${roots.etc}/cni/net.d`),
    },
    images: { ...parsed.images, certs_dir: parsed.images.certs_dir ?? `${roots.etc}/certs.d` },
  });
}

function deepFreeze<T extends object>(value: T): T {
  for (const inner of Object.values(value)) {
    if (typeof inner === 'object' && inner !== null) deepFreeze(inner);
  }
  return Object.freeze(value);
}
