// `npm run conformance`: runs the critest of the PATH against stacks of their own, one handler after
// the other, in mount, process and network namespaces of their own, so that neither another stack on
// this machine nor anything left behind matters.
import { spawn } from 'node:child_process';
import { accessSync, constants, mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from './build.mjs';
import { pinnedNode } from './pinned-node.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const HOW_TO_GET_IT = `There is no critest on the PATH. It is part of cri-tools: take critest of v1.36 from
https://github.com/kubernetes-sigs/cri-tools/releases, or build it with Go from a checkout of the
tag v1.36.0 (make critest) and put it on the PATH.`;

/** The path of a program on the PATH. */
function find(name) {
  for (const directory of (process.env.PATH ?? '').split(delimiter)) {
    const path = join(directory || '.', name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not in this directory.
    }
  }
  return undefined;
}

function refuse(message, code = 1) {
  console.error(message);
  process.exit(code);
}

const words = process.argv.slice(2).filter((word) => word !== '--');
const critest = find('critest');
if (critest === undefined) refuse(HOW_TO_GET_IT);
if (process.geteuid?.() !== 0) refuse('It needs root: it makes pods. Try it with sudo.');
await build();

const program = [
  pinnedNode(root),
  join(root, 'tests', 'conformance', 'conformance.ts'),
  critest,
  ...words,
];
// critest leaves files and mounts in its temporary directory. Here that is a filesystem of the new
// mount namespace, which goes with it, so that nobody has to remove what may be mounted from the host.
const scratch = mkdtempSync(join(tmpdir(), 'cribus-critest-'));
// Loopback is down in a new network namespace; catatonit reaps what outlives its parent.
const prepare = 'ip link set lo up && mount -t tmpfs -o mode=1777 critest "$0"';
const inside = ['sh', '-c', `${prepare} && exec catatonit -- "$@"`, scratch, ...program];
const child = spawn(
  'unshare',
  ['--mount', '--pid', '--net', '--fork', '--mount-proc', '--kill-child', ...inside],
  {
    // Away from the terminal's Ctrl-C: the end of its standard input tells it to take all down.
    detached: true,
    stdio: ['pipe', 'inherit', 'inherit'],
    env: {
      ...process.env,
      NODE_OPTIONS: '--disable-warning=ExperimentalWarning',
      CRITEST_TMPDIR: scratch,
    },
  },
);
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(name, () => child.stdin.end());
child.on('exit', (code) => {
  rmdirSync(scratch);
  process.exitCode = code ?? 1;
});
