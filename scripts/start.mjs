// `npm start`: sets up, then brings the runtime up with its tour and serves until Ctrl-C.
import { spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setupOrExit } from './setup.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
await setupOrExit();
const child = spawn(
  join(root, 'bin', 'cribus'),
  ['up', '--ephemeral', '--tour', ...process.argv.slice(2)],
  {
    stdio: 'inherit',
  },
);
// A terminal's Ctrl-C reaches the child by itself too; it takes both for one.
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(name, () => child.kill(name));
child.on('exit', (code, signal) => {
  process.exitCode = code ?? (signal === 'SIGINT' ? 130 : 143);
});
