// Stand-ins for every image that the validation specs of critest v1.36 pull, made of this machine's
// own Debian packages, so that no public registry is asked. What each must have (user, ports, words
// in its log) is what its specs look at.

import { type BuiltImage, pushImage, pushManifest } from '@cribus/cli/tour/image.ts';
import type { Registry } from '@cribus/cli/tour/registry.ts';
import { type ArchiveEntry, archive } from '../e2e/harness/archive.ts';
import { ARCHITECTURE, composeImage, composeIndex } from '../e2e/harness/compose-image.ts';
import {
  baseLayer,
  directory,
  GROUP,
  PASSWD,
  program,
  readProgram,
  SET_UID_SHELL,
} from './root-filesystem.ts';

/** Any tag or none, and how the image is made. */
interface StandIn {
  readonly repository: string;
  readonly tags: readonly string[];
  /** Above the shared root filesystem. */
  readonly layer?: readonly ArchiveEntry[];
  /** Instead of the shared root filesystem. */
  readonly alone?: boolean;
  readonly config: object;
  /** A manifest without the index that the true image has. */
  readonly bare?: boolean;
}

const E2E = 'e2e-test-images';
const STAGING = 'k8s-staging-cri-tools';
const PATH = ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'];
const PUSH_TIMEOUT_MS = 120_000;

/**
 * Waits at its end, catches what stops it, and shows `master process` in its command line, which a
 * spec looks for in /proc/1/cmdline; another looks for the process by its name and pid file.
 */
const WEB_SERVER = `#!/bin/sh
trap 'kill "$server"; rm -f /var/run/nginx.pid; exit 0' TERM QUIT INT
echo "$$" >/var/run/nginx.pid
/bin/busybox httpd -f -p "$1" -h /var/www &
server=$!
echo "\${0##*/}: resuming normal operations on port $1"
wait "$server"
`;

/** A shell that keeps its set-uid identity (-p) and says it; busybox would drop it. */
const EFFECTIVE_UID = `while read -r key real effective rest; do
  [ "$key" = Uid: ] && echo "Effective uid: $effective"
done </proc/self/status`;

/** The one image that critest names by a digest, which nobody else's build can have. */
export const DIGEST_IMAGE = 'test-image-digest';

/** Pushes all of them; answers the digest of DIGEST_IMAGE, as sha256:<hex>. */
export async function pushImages(registry: Registry): Promise<string> {
  const base = archive(baseLayer());
  let digest = '';
  for (const standIn of standIns()) {
    const image = build(standIn, base);
    await push(standIn, image, registry);
    if (standIn.repository.endsWith(`/${DIGEST_IMAGE}`)) digest = image.manifest.digest;
  }
  return digest;
}

function build(standIn: StandIn, base: Buffer): BuiltImage {
  const layer = standIn.layer === undefined ? [] : [archive(standIn.layer)];
  return composeImage({
    layers: standIn.alone ? layer : [base, ...layer],
    docker: true,
    config: { Env: PATH, ...standIn.config },
  });
}

async function push(standIn: StandIn, image: BuiltImage, registry: Registry): Promise<void> {
  const { repository, tags, bare } = standIn;
  const signal = AbortSignal.timeout(PUSH_TIMEOUT_MS);
  const target = { registry: registry.url, repository, signal };
  await pushImage(image, bare ? tags : [image.manifest.digest], target);
  if (bare) return;
  const entries = [{ manifest: image.manifest, architecture: ARCHITECTURE }];
  const index = composeIndex(entries, { docker: true });
  for (const tag of tags) await pushManifest(index, tag, target);
}

function standIns(): StandIn[] {
  const shell = { Cmd: ['sh'] };
  const mark = (name: string) => [{ name }];
  return [
    {
      repository: `${E2E}/busybox`,
      tags: ['1.29-2', '1.29-4', '1.36.1-1', '1.37.0-1'],
      config: shell,
    },
    webServer(`${E2E}/nginx`, { tags: ['1.14-2', '1.14-4', '1.15-4'], name: 'nginx', port: 80 }),
    webServer(`${E2E}/httpd`, { tags: ['2.4.38-4', '2.4.39-4'], name: 'httpd', port: 80 }),
    // critest waits for this port on the host.
    webServer(`${STAGING}/hostnet-nginx-${ARCHITECTURE}`, {
      tags: ['latest'],
      name: 'nginx',
      port: 12003,
    }),
    {
      repository: `${E2E}/nonewprivs`,
      tags: ['1.3', '1.4'],
      layer: [{ ...program('nnp', readProgram(SET_UID_SHELL)), mode: 0o4755 }],
      config: { Entrypoint: ['/nnp', '-p', '-c', EFFECTIVE_UID] },
    },
    {
      repository: 'pause',
      tags: ['3.9'],
      alone: true,
      layer: [program('pause', readProgram('/usr/bin/catatonit'))],
      config: { Entrypoint: ['/pause', '-P'], User: '65535:65535', WorkingDir: '/' },
    },
    ...userImages(),
    ...['test-image-1', 'test-image-2', 'test-image-3', 'test-image-latest'].map((name) => ({
      repository: `${STAGING}/${name}`,
      tags: ['latest'],
      layer: mark(name),
      config: shell,
    })),
    {
      repository: `${STAGING}/${DIGEST_IMAGE}`,
      tags: ['latest'],
      layer: mark(DIGEST_IMAGE),
      config: shell,
      bare: true,
    },
    {
      repository: `${STAGING}/test-image-tags`,
      tags: ['1', '2', '3'],
      layer: mark('same-image'),
      config: shell,
    },
    ...['test', 'all'].map((tag) => ({
      repository: `${STAGING}/test-image-tag`,
      tags: [tag],
      layer: mark(tag),
      config: shell,
    })),
  ];
}

function webServer(
  repository: string,
  server: { readonly tags: readonly string[]; readonly name: string; readonly port: number },
): StandIn {
  const path = `usr/sbin/${server.name}`;
  return {
    repository,
    tags: server.tags,
    layer: [program(path, Buffer.from(WEB_SERVER))],
    config: {
      Cmd: [`/${path}`, String(server.port), 'master process'],
      ExposedPorts: { [`${server.port}/tcp`]: {} },
      StopSignal: 'SIGTERM',
    },
  };
}

function userImages(): StandIn[] {
  const users: Readonly<Record<string, string>> = {
    'user-uid': '1002',
    'user-username': 'www-data',
    'user-uid-group': '1003:1004',
    'user-username-group': 'www-data:1004',
  };
  const home = 'home/default-user';
  const passwd = `${PASSWD}default-user:x:1000:1000:Linux User,,,:/${home}:/bin/sh\n`;
  const group = `${GROUP}default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n`;
  return [
    ...Object.entries(users).map(([name, User]) => ({
      repository: `${STAGING}/test-image-${name}`,
      tags: ['latest'],
      config: { Cmd: ['sh'], User },
    })),
    {
      repository: `${STAGING}/test-image-predefined-group`,
      tags: ['latest'],
      layer: [
        { name: 'etc/passwd', data: passwd },
        { name: 'etc/group', data: group },
        { ...directory(home), uid: 1000, gid: 1000 },
      ],
      config: { Cmd: ['sh'], User: '1000' },
    },
  ];
}
