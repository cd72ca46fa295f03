// What runsc can't do, each with a bare command of runsc that shows it: a bundle with this
// configuration, run without anything of ours. tests/e2e/gvisor-limits.test.ts runs each of them with
// the installed runsc; a limit that a newer release no longer has fails there, and leaves this list.

export interface EngineLimit {
  /** As a person would type it, with what matters of the configuration. */
  readonly command: string;
  /** In front of `run`. */
  readonly flags: readonly string[];
  readonly args: readonly string[];
  /** Merged into the configuration of a plain container. */
  readonly config: object;
  /** What the command says; under runc it would say something else. */
  readonly says: RegExp;
  /**
   * `run` unless it takes a container that runs already: a further one beside it, a command in it, its
   * processes after such a command, or its pod's state after a checkpoint of one beside it.
   */
  readonly how: 'run' | 'beside' | 'exec' | 'ps' | 'checkpoint';
}

const PROC = { destination: '/proc', type: 'proc', source: 'proc' };
const BLOCKS_SETHOSTNAME = {
  defaultAction: 'SCMP_ACT_ALLOW',
  syscalls: [{ names: ['sethostname'], action: 'SCMP_ACT_ERRNO', errnoRet: 1 }],
};
const EFFECTIVE_UID = `while read -r key real effective rest; do
  [ "$key" = Uid: ] && echo "effective uid $effective"
done </proc/self/status`;
const MAPPING = [{ containerID: 0, hostID: 100_000, size: 65_536 }];

export const GVISOR_LIMITS = {
  'shared-propagation': {
    command: 'runsc run BUNDLE (rootfsPropagation: rshared)',
    flags: [],
    args: ['true'],
    config: { linux: { rootfsPropagation: 'rshared' } },
    says: /root mount propagation option must specify private or slave: "rshared"/,
    how: 'run',
  },
  'read-only-is-recursive': {
    command: 'runsc run BUNDLE touch /mnt/shm/x (mounts: /dev to /mnt, rbind, ro)',
    flags: [],
    args: ['touch', '/mnt/shm/x'],
    config: {
      mounts: [
        PROC,
        { destination: '/mnt', type: 'bind', source: '/dev', options: ['rbind', 'ro'] },
      ],
    },
    says: /Read-only file system/,
    how: 'run',
  },
  'no-memory-limit-in-a-sentry': {
    command:
      'runsc create and start BUNDLE dd bs=20M beside a running container of the same Sentry (memory.limit: 15 MiB)',
    flags: [],
    args: ['sh', '-c', 'dd if=/dev/zero of=/dev/null bs=20M count=3 && echo survived'],
    config: { linux: { resources: { memory: { limit: 15_728_640, swap: 15_728_640 } } } },
    says: /survived/,
    how: 'beside',
  },
  'few-sysctls': {
    command:
      'runsc run BUNDLE cat /proc/sys/kernel/shm_rmid_forced /proc/sys/fs/mqueue/msg_max (sysctl: both)',
    flags: [],
    args: ['cat', '/proc/sys/kernel/shm_rmid_forced', '/proc/sys/fs/mqueue/msg_max'],
    config: {
      linux: { sysctl: { 'kernel.shm_rmid_forced': '1', 'fs.mqueue.msg_max': '100' } },
    },
    says: /shm_rmid_forced': No such file or directory\n.*msg_max': No such file or directory/,
    how: 'run',
  },
  'own-process-ids': {
    command: "runsc run BUNDLE sh -c 'echo /proc/[0-9]*' (no pid namespace)",
    flags: [],
    args: ['sh', '-c', 'echo /proc/[0-9]*'],
    config: { linux: { namespaces: [{ type: 'mount' }, { type: 'network' }] } },
    says: /^\/proc\/1$/m,
    how: 'run',
  },
  'own-ipc': {
    command: 'ipcmk -M 4096; runsc run BUNDLE ipcs -m (no ipc namespace)',
    flags: [],
    args: ['ipcs', '-m'],
    config: { linux: { namespaces: [{ type: 'mount' }, { type: 'network' }, { type: 'pid' }] } },
    says: /status\s*$/,
    how: 'run',
  },
  'sockets-of-the-host-unseen': {
    command: 'runsc --network=host run BUNDLE netstat -ltn (no network namespace)',
    flags: ['--network=host'],
    args: ['netstat', '-ltn'],
    config: { linux: { namespaces: [{ type: 'mount' }, { type: 'pid' }] } },
    says: /Foreign Address\s+State\s*$/,
    how: 'run',
  },
  'no-set-uid': {
    command: 'runsc run BUNDLE a set-uid program of root (user: 1000)',
    flags: [],
    args: ['/set-uid-shell', '-p', '-c', EFFECTIVE_UID],
    config: { process: { user: { uid: 1000, gid: 1000 } } },
    says: /effective uid 1000/,
    how: 'run',
  },
  'exec-without-seccomp': {
    command:
      "runsc --oci-seccomp exec ID sh -c 'hostname y && hostname' (seccomp: sethostname fails)",
    flags: ['--oci-seccomp'],
    args: ['sh', '-c', 'grep Seccomp: /proc/self/status; hostname y && hostname'],
    config: { linux: { seccomp: BLOCKS_SETHOSTNAME } },
    says: /Seccomp:\s*0\ny$/m,
    how: 'exec',
  },
  'orphans-are-nobodys': {
    command: "runsc exec ID sh -c '(sleep 60 &)'; runsc ps ID",
    flags: [],
    args: ['sh', '-c', '(sleep 60 >/dev/null 2>&1 &)'],
    config: {},
    // Its parent is the container's own process by now, and nothing there tells who started it.
    says: /^UID +PID +PPID +C +TTY +STIME +TIME +CMD\n(.*\n)*\d+ +\d+ +1 .*sleep$/m,
    how: 'ps',
  },
  'no-apparmor': {
    command: "runsc run BUNDLE sh -c 'echo ran' (apparmorProfile: no-such-profile)",
    flags: [],
    args: ['sh', '-c', 'echo ran'],
    config: { process: { apparmorProfile: 'no-such-profile' } },
    says: /^ran$/m,
    how: 'run',
  },
  'no-masked-paths': {
    command: 'runsc run BUNDLE ls /etc/passwd (maskedPaths: /bin/ls)',
    flags: [],
    args: ['ls', '/etc/passwd'],
    config: { linux: { maskedPaths: ['/bin/ls'] } },
    says: /^\/etc\/passwd$/m,
    how: 'run',
  },
  'no-read-only-paths': {
    command: "runsc run BUNDLE sh -c 'touch /tmp/x && echo written' (readonlyPaths: /tmp)",
    flags: [],
    args: ['sh', '-c', 'touch /tmp/x && echo written'],
    config: { linux: { readonlyPaths: ['/tmp'] } },
    says: /written/,
    how: 'run',
  },
  'no-bridges': {
    command: 'runsc run BUNDLE brctl addbr foobar (CAP_NET_ADMIN)',
    flags: [],
    args: ['brctl', 'addbr', 'foobar'],
    config: {},
    says: /bridge foobar: Inappropriate ioctl for device/,
    how: 'run',
  },
  'no-raw-sockets': {
    command: 'runsc --network=host --net-raw run BUNDLE ping -c1 127.0.0.1 (CAP_NET_RAW)',
    flags: ['--network=host', '--net-raw'],
    args: ['ping', '-c1', '127.0.0.1'],
    config: {},
    says: /can't create raw socket: Address family not supported by protocol/,
    how: 'run',
  },
  'no-user-namespaces': {
    command: 'runsc run BUNDLE cat /proc/self/uid_map (user namespace, uidMappings: 0 to 100000)',
    flags: [],
    args: ['cat', '/proc/self/uid_map'],
    config: {
      linux: {
        namespaces: [{ type: 'user' }, { type: 'mount' }, { type: 'network' }, { type: 'pid' }],
        uidMappings: MAPPING,
        gidMappings: MAPPING,
      },
    },
    says: /^\s*0\s+0\s+4294967295$/m,
    how: 'run',
  },
  'checkpoint-ends-the-pod': {
    command: 'runsc checkpoint --leave-running ID (beside another container); runsc state OTHER',
    flags: [],
    args: ['sleep', '60'],
    config: {},
    says: /"status": "stopped"/,
    how: 'checkpoint',
  },
} as const satisfies Record<string, EngineLimit>;

export type EngineLimitName = keyof typeof GVISOR_LIMITS;
