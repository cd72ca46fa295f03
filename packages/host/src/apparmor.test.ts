import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'mocha';
import { loadedAppArmorProfiles } from './apparmor.ts';

describe('AppArmor', () => {
  it('reads the names of the loaded profiles, with spaces in them, and tells none from unknown', () => {
    const directory = mkdtempSync(join(tmpdir(), 'apparmor-'));
    const file = join(directory, 'profiles');
    try {
      writeFileSync(file, 'cribus-default (enforce)\n/usr/bin/man (complain)\na b (unconfined)\n');
      assert.deepEqual(loadedAppArmorProfiles(file), ['cribus-default', '/usr/bin/man', 'a b']);
      writeFileSync(file, '');
      assert.deepEqual(loadedAppArmorProfiles(file), []);
      assert.equal(loadedAppArmorProfiles(join(directory, 'absent')), undefined);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
