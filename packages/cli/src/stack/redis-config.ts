// redis.conf of the embedded store: a unix socket for root, nothing on disk, and users that may touch
// only cribus' own keys. It holds what services reported, and can always be filled again by them.

import { createHash } from 'node:crypto';
import { OPERATOR, USERS, type UserName } from './credentials.ts';

export interface RedisPlan {
  readonly socket: string;
  /** Its working directory; nothing is written there. */
  readonly directory: string;
  readonly passwords: Readonly<Record<UserName, string>>;
}

/** Far above what one node reports (a few KB for each object); a bound all the same. */
const MEMORY_MAX = '256mb';

/** The text of redis.conf. */
export function redisConfig(plan: RedisPlan): string {
  const users = USERS.filter((user) => user !== OPERATOR)
    .map((user) => `user ${user} ${aclOf(plan.passwords[user])}`)
    .join('\n');
  return `# Written by "cribus up" at each start: changes here are lost.
# The state that the services of this stack reported; it can always be reported again, so nothing
# is kept on disk. Look at it with:
#   redis-cli -s ${plan.socket} -a <the password below> keys 'cribus:*'
port 0
unixsocket ${quoted(plan.socket)}
unixsocketperm 600
daemonize no
dir ${quoted(plan.directory)}
save ""
appendonly no
databases 1
maxmemory ${MEMORY_MAX}
maxmemory-policy noeviction
loglevel notice
logfile ""

# The default user may do everything: it is for people.
requirepass ${plan.passwords[OPERATOR]}

# Each service sees the keys below cribus: only, and no command that reaches further.
${users}
`;
}

/** INFO is how a service notices that the server is another one than before. */
function aclOf(password: string): string {
  const hash = createHash('sha256').update(password).digest('hex');
  return (
    `on #${hash} ~cribus:* resetchannels -@all +@read +@write +@connection +@transaction ` +
    '+eval +evalsha -@dangerous +info'
  );
}

/** redis.conf reads "…" with C escapes (redis, sds.c, sdssplitargs). */
function quoted(text: string): string {
  return `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;
}
