// Who may use the bus and the store: one nkey and one password for each service, and one of each for
// people and tests (`operator`). Made once, kept in files that only root can read.

import { randomBytes } from 'node:crypto';
import { chmod, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { readFileIfExists, writeFileAtomic } from '@cribus/host/files.ts';
import { createUser, fromSeed } from '@nats-io/nkeys';
import { SERVICES } from './services.ts';

export const OPERATOR = 'operator';
/** Names of the credentials; also the Redis user and the file names (`<name>.nk`, `<name>.redis`). */
export const USERS = [...SERVICES, OPERATOR] as const;
export type UserName = (typeof USERS)[number];

export interface Credentials {
  /** Public nkeys, as nats-server.conf lists them. */
  readonly publicKeys: Readonly<Record<UserName, string>>;
  readonly redisPasswords: Readonly<Record<UserName, string>>;
}

/** Reads the credentials of a directory, making what is missing: 0700, files 0600. */
export async function provideCredentials(directory: string): Promise<Credentials> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  await chmod(directory, 0o700);
  const rows = await Promise.all(
    USERS.map(async (user) => {
      const seed = await keep(join(directory, `${user}.nk`), newSeed);
      const password = await keep(join(directory, `${user}.redis`), newPassword);
      const key = fromSeed(new TextEncoder().encode(seed)).getPublicKey();
      return { user, key, password };
    }),
  );
  const pick = (field: 'key' | 'password') =>
    Object.fromEntries(rows.map((row) => [row.user, row[field]])) as Record<UserName, string>;
  return { publicKeys: pick('key'), redisPasswords: pick('password') };
}

/** The operator's Redis password; undefined before the first `up`. */
export async function operatorPassword(directory: string): Promise<string | undefined> {
  return (await readFileIfExists(join(directory, `${OPERATOR}.redis`)))?.toString('utf8').trim();
}

async function keep(path: string, make: () => string): Promise<string> {
  const known = (await readFileIfExists(path))?.toString('utf8').trim();
  if (known !== undefined && known !== '') return known;
  const made = make();
  await writeFileAtomic(path, `${made}\n`, { mode: 0o600 });
  return made;
}

function newSeed(): string {
  return new TextDecoder().decode(createUser().getSeed());
}

/** 192 bits, in letters that need no quoting anywhere. */
function newPassword(): string {
  return randomBytes(24).toString('hex');
}
