// Who a container's process is: uid, gid and supplemental groups from the request, the image and
// the files /etc/passwd and /etc/group of its root filesystem.

import {
  type LinuxContainerSecurityContext,
  SupplementalGroupsPolicy,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { type Invalid, quoted } from './invalid-field.ts';
import type { SpecUser } from './spec.ts';

export interface UserInput {
  readonly security: LinuxContainerSecurityContext;
  /** The image's User: name, uid, name:group or uid:gid; may be empty. */
  readonly imageUser: string;
  readonly passwd: string;
  readonly group: string;
}

interface PasswdEntry {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

interface GroupEntry {
  readonly name: string;
  readonly gid: number;
  readonly members: readonly string[];
}

/** 4294967295 means "leave as it is" to setresuid(2), so it is nobody's id. */
const ID_MAX = 4294967294;

/**
 * Resolves the user: run_as_user, else run_as_username, else the image's User, else root. Without a
 * group, the user's own of /etc/passwd is taken, else 0. `Merge` adds the memberships that
 * /etc/group gives the user to the requested supplemental groups, `Strict` doesn't; the primary
 * group is always one of them, so that leaving it can't widen access (CVE-2022-36109). Sorted, each
 * once.
 */
export function resolveUser(input: UserInput, invalid: Invalid): SpecUser {
  const { security } = input;
  const { supplementalGroupsPolicy: policy } = security;
  if (!Object.values(SupplementalGroupsPolicy).includes(policy)) {
    throw invalid('supplemental_groups_policy', `${policy} is not a policy: Merge or Strict`);
  }
  const asked = askedUser(input, invalid);
  const passwd = parsePasswd(input.passwd);
  const groups = parseGroup(input.group);
  const named = passwd.find(({ name }) => name === asked.user);
  // What CRI calls a name is looked for as one, also where it is of digits alone; only then is it a uid,
  // as the digits of an image's User are, which a client may hand on as it found them.
  const isName = asked.field === 'run_as_username' && named !== undefined;
  const uid = isName ? undefined : idOf(asked.user, asked.field, invalid);
  const entry = uid === undefined ? named : passwd.find((candidate) => candidate.uid === uid);
  if (uid === undefined && entry === undefined) {
    throw invalid(asked.field, `the image's /etc/passwd has no user ${quoted(asked.user)}`);
  }
  const gid =
    asked.group === undefined
      ? (entry?.gid ?? 0)
      : groupId(asked.group, groups, { field: asked.groupField, invalid });
  const additional = new Set([gid]);
  if (policy === SupplementalGroupsPolicy.Merge && entry !== undefined) {
    for (const { name, gid: member, members } of groups) {
      // A group of the user's own name is the primary one of its passwd line, not a membership.
      if (name !== entry.name && members.includes(entry.name)) additional.add(member);
    }
  }
  for (const requested of security.supplementalGroups) {
    additional.add(checkedId(requested, 'supplemental_groups', invalid));
  }
  return {
    uid: uid ?? entry?.uid ?? 0,
    gid,
    additionalGids: [...additional].sort((a, b) => a - b),
  };
}

interface AskedUser {
  readonly user: string;
  readonly field: string;
  readonly group: string | undefined;
  readonly groupField: string;
}

function askedUser(input: UserInput, invalid: Invalid): AskedUser {
  const { runAsUser, runAsUsername, runAsGroup } = input.security;
  const group =
    runAsGroup === undefined
      ? undefined
      : String(checkedId(runAsGroup.value, 'run_as_group', invalid));
  const groupField = 'run_as_group';
  if (runAsUser !== undefined) {
    const user = String(checkedId(runAsUser.value, 'run_as_user', invalid));
    return { user, field: 'run_as_user', group, groupField };
  }
  if (runAsUsername !== '') {
    return { user: runAsUsername, field: 'run_as_username', group, groupField };
  }
  if (group !== undefined) {
    throw invalid('run_as_group', `group ${group} is given without run_as_user or run_as_username`);
  }
  const field = "the image's User";
  const [user = '', imageGroup = ''] = input.imageUser.split(':', 2);
  return {
    user: user === '' ? '0' : user,
    field,
    group: imageGroup === '' ? undefined : imageGroup,
    groupField: field,
  };
}

function groupId(
  group: string,
  groups: readonly GroupEntry[],
  where: { readonly field: string; readonly invalid: Invalid },
): number {
  const id = idOf(group, where.field, where.invalid);
  if (id !== undefined) return id;
  const entry = groups.find((candidate) => candidate.name === group);
  if (entry !== undefined) return entry.gid;
  throw where.invalid(where.field, `the image's /etc/group has no group ${quoted(group)}`);
}

/** The number that the text is; undefined for a name. */
function idOf(text: string, field: string, invalid: Invalid): number | undefined {
  return /^-?\d+$/.test(text) ? checkedId(BigInt(text), field, invalid) : undefined;
}

function checkedId(id: bigint, field: string, invalid: Invalid): number {
  if (id < 0n || id > ID_MAX) {
    throw invalid(field, `${String(id).slice(0, 40)} is not an id between 0 and ${ID_MAX}`);
  }
  return Number(id);
}

// Lines that aren't as passwd(5) and group(5) say are passed over: a broken one must not make the
// image unusable.
function parsePasswd(text: string): PasswdEntry[] {
  return fieldsOf(text).flatMap(([name = '', , uid = '', gid = '']) =>
    name !== '' && isId(uid) && isId(gid) ? [{ name, uid: Number(uid), gid: Number(gid) }] : [],
  );
}

function parseGroup(text: string): GroupEntry[] {
  return fieldsOf(text).flatMap(([name = '', , gid = '', members = '']) =>
    name !== '' && isId(gid) ? [{ name, gid: Number(gid), members: members.split(',') }] : [],
  );
}

function fieldsOf(text: string): string[][] {
  return text.split('\n').map((line) => line.trim().split(':'));
}

function isId(text: string): boolean {
  return /^\d{1,10}$/.test(text) && Number(text) <= ID_MAX;
}
