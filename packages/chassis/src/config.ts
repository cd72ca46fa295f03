// The one configuration of a stack: a TOML file, this schema, and the errors a person gets for it.

import { Failure } from '@cribus/contracts/failure.ts';
import { type Roots, rootsBelow, SYSTEM_ROOTS } from '@cribus/contracts/paths.ts';
import { parse as parseToml, TomlError } from 'smol-toml';
import * as v from 'valibot';

const absolutePath = v.pipe(v.string(), v.regex(/^\//, 'must be an absolute path'));
const port = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65_535));
const name = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9._-]{1,63}$/, 'must be 1 to 63 of A-Z a-z 0-9 . _ -'),
);

export const RuntimeHandlerSchema = v.strictObject({
  /** Which driver: `runc` for runc and crun, `gvisor` for runsc. */
  family: v.picklist(['runc', 'gvisor']),
  /** The engine: absolute, or a name on PATH. */
  engine: v.string(),
  /** gVisor's --platform, as systrap, ptrace or kvm; empty: found by trial. */
  platform: v.optional(v.string(), ''),
  /** gVisor's --network: auto tries sandbox (netstack), then host in the pod's own network namespace. */
  network: v.optional(v.picklist(['auto', 'sandbox', 'host']), 'auto'),
  /** Further options in front of every command of the engine. */
  extra_args: v.optional(v.array(v.string()), []),
  /** Pod annotations handed to the engine, exact or with a final `*`; none by default. */
  pod_annotations: v.optional(v.array(v.string()), []),
  container_annotations: v.optional(v.array(v.string()), []),
});

export const ConfigSchema = v.strictObject({
  node: v.optional(v.strictObject({ name: v.optional(name, 'node') }), {}),
  paths: v.optional(
    v.strictObject({
      run: v.optional(absolutePath),
      state: v.optional(absolutePath),
      etc: v.optional(absolutePath),
      log: v.optional(absolutePath),
    }),
    {},
  ),
  nats: v.optional(
    v.strictObject({
      /** `nats://host:port`, with user:password@ where the server wants them. Empty: `cribus up` starts its own. */
      url: v.optional(v.string(), ''),
      /** Directory with one `<service>.nk` nkey seed each; empty: none are used. */
      credentials_dir: v.optional(v.string(), ''),
    }),
    {},
  ),
  redis: v.optional(
    v.strictObject({
      /** `redis://…`, or `unix:///path`. Empty: `cribus up` starts its own. */
      url: v.optional(v.string(), ''),
      /** Directory with one `<service>.redis` password each (the user has the service's name). */
      credentials_dir: v.optional(v.string(), ''),
    }),
    {},
  ),
  gateway: v.optional(
    v.strictObject({
      /** The CRI endpoint; default `<run>/cribus.sock`. */
      socket: v.optional(absolutePath),
      /** Where exec, attach and port-forward streams are served. */
      streaming_address: v.optional(v.string(), '127.0.0.1'),
      streaming_port: v.optional(port, 0),
    }),
    {},
  ),
  cni: v.optional(
    v.strictObject({
      conf_dir: v.optional(absolutePath),
      bin_dirs: v.optional(v.array(absolutePath), ['/opt/cni/bin', '/usr/lib/cni']),
      /** Used while conf_dir holds no configuration; set by `cribus up`, never under systemd. */
      fallback_conf_dir: v.optional(v.string(), ''),
      add_timeout_s: v.optional(v.pipe(v.number(), v.minValue(1), v.maxValue(600)), 120),
    }),
    {},
  ),
  images: v.optional(
    v.strictObject({
      /** containerd's layout: certs.d/<host>/hosts.toml. */
      certs_dir: v.optional(absolutePath),
      max_parallel_downloads: v.optional(
        v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(32)),
        6,
      ),
      max_parallel_unpacks: v.optional(
        v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(16)),
        2,
      ),
      /** A pull fails when no byte arrives for so long. */
      progress_timeout_s: v.optional(v.pipe(v.number(), v.minValue(1), v.maxValue(3600)), 60),
      /** Kept from the kubelet's garbage collection; exact references or with a final `*`. */
      pinned: v.optional(v.array(v.string()), []),
    }),
    {},
  ),
  runtimes: v.optional(
    v.strictObject({
      default: v.optional(name, 'runc'),
      handlers: v.optional(v.record(name, RuntimeHandlerSchema), {
        runc: { family: 'runc', engine: 'runc' },
        crun: { family: 'runc', engine: 'crun' },
        gvisor: { family: 'gvisor', engine: 'runsc' },
      }),
    }),
    {},
  ),
  cgroups: v.optional(
    v.strictObject({
      driver: v.optional(v.picklist(['cgroupfs', 'systemd']), 'cgroupfs'),
      /** Where containers without a cgroup parent go, and monitors. */
      root: v.optional(v.string(), '/cribus'),
    }),
    {},
  ),
  metrics: v.optional(
    v.strictObject({
      address: v.optional(v.string(), '127.0.0.1'),
      /** Per service; 0 or absent: any free port, printed in the log. */
      ports: v.optional(v.record(name, port), {}),
    }),
    {},
  ),
  log: v.optional(
    v.strictObject({
      level: v.optional(v.picklist(['trace', 'debug', 'info', 'warn', 'error']), 'info'),
    }),
    {},
  ),
  monitor: v.optional(v.strictObject({ conmon: v.optional(v.string(), 'conmon') }), {}),
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
    const lines = result.issues.map((issue) => describeIssue(issue as v.BaseIssue<unknown>));
    throw new Failure('invalid_argument', `${options.file}: ${lines.join('; ')}`);
  }
  return complete(result.output, options.directory);
}

function describeIssue(issue: v.BaseIssue<unknown>): string {
  const key = v.getDotPath(issue) ?? '(top level)';
  return `${key} = ${issue.received}: ${issue.expected === null ? issue.message : `expected ${issue.expected} (${issue.message})`}`;
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
  return Object.freeze({
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
