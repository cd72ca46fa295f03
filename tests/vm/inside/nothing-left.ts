// What an uninstallation must not leave: looked for on the whole machine by name, whatever wrote it.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { cgroupsOf, run } from './installed-node.ts';

/** The tests' own, and what the machine was made with. */
const OURS =
  /^\/(?:srv\/cribus|var\/lib\/cribus-tests|var\/tmp|(?:etc|run)\/systemd\/.*cribus-tests\.service|etc\/modules-load\.d\/cribus\.conf|run\/udev\/links\/virtio-ports)/;
/** What they run in, where their files are, and the port by which they tell. */
const UNITS_OF_TESTS = /^(?:cribus-tests\.service|srv-cribus\.mount|dev-virtio\S+\.device) /;
const PROFILES = '/sys/kernel/security/apparmor/profiles';

/** Fails with every file, process, mount, cgroup, unit and profile of cribus that is there. */
export function assertNothingIsLeft(): void {
  const find = ['/', '/run', '-xdev', '-name', '*cribus*', '-not', '-path', '/proc/*'];
  const files = lines(run('find', ...find)).filter((path) => !OURS.test(path));
  const units = lines(
    run('systemctl', 'list-units', '--all', '--plain', '--no-legend', '*cribus*'),
  );
  const processes = lines(run('ps', '-eo', 'args')).filter((line) =>
    /conmon|usr\/lib\/cribus|nats-server|redis-server/.test(line),
  );
  const mounts = lines(readFileSync('/proc/self/mountinfo', 'utf8'));
  const profiles = existsSync(PROFILES) ? lines(readFileSync(PROFILES, 'utf8')) : [];
  assert.deepEqual(
    {
      files,
      processes,
      units: units.filter((line) => !UNITS_OF_TESTS.test(line)),
      mounts: mounts.filter((line) => /cribus/.test(line) && !/srv\/cribus /.test(line)),
      cgroups: cgroupsOf('cribus').filter((path) => !path.includes('cribus-tests')),
      profiles: profiles.filter((line) => line.startsWith('cribus')),
    },
    { files: [], processes: [], units: [], mounts: [], cgroups: [], profiles: [] },
  );
}

function lines(text: string): string[] {
  return text.split('\n').filter((line) => line !== '');
}
