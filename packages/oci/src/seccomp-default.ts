// The filter of RuntimeDefault: which system calls a container may make. An allow-list in the
// spirit of the policy that Docker publishes ("Seccomp security profiles for Docker"): what a
// program of a normal distribution needs, and nothing that reaches past the container's namespaces
// without the capability that guards it. What each call does is in its page of section 2 of the
// Linux man-pages, its names on each architecture in the kernel's arch/*/entry/syscalls; names that
// an architecture lacks are passed over by the engine.

import type { SpecSeccomp, SpecSyscallRule } from './spec.ts';

/** errno.h, the same numbers on every architecture that is listed here. */
const EPERM = 1;
const ENOSYS = 38;

const ALLOW = 'SCMP_ACT_ALLOW';
const ERRNO = 'SCMP_ACT_ERRNO';

/** A machine's own system call tables: its 64-bit one, and those of the 32-bit programs it runs. */
const ARCHITECTURES: Readonly<Record<'x64' | 'arm64', readonly string[]>> = {
  x64: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'],
  arm64: ['SCMP_ARCH_AARCH64', 'SCMP_ARCH_ARM'],
};

const words = (text: string): string[] => text.trim().split(/\s+/);

/** Files: open, read, write, rename, links, permissions, attributes, locks, watches. */
const FILES = words(`
  access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat
  faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown
  fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat
  fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents
  getdents64 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl
  lchown lchown32 lgetxattr link linkat listxattr listxattrat llistxattr _llseek lremovexattr lseek
  lsetxattr lstat lstat64 memfd_create memfd_secret mkdir mkdirat mknod mknodat name_to_handle_at
  newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read
  readahead readlink readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir
  sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs statfs64 statx symlink symlinkat
  sync sync_file_range sync_file_range2 arm_sync_file_range syncfs tee truncate truncate64
  ugetrlimit umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev
  cachestat file_getattr file_setattr listmount statmount`);

/** Memory of the process itself. */
const MEMORY = words(`
  brk madvise map_shadow_stack membarrier mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap
  mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages`);

/** Processes, threads, signals and their identity; other processes only within the namespace. */
const PROCESSES = words(`
  capget capset execve execveat exit exit_group fork get_robust_list get_thread_area getegid
  getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid
  getpriority getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid gettid getuid
  getuid32 ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset
  landlock_restrict_self pause pidfd_open pidfd_send_signal prctl prlimit64 process_mrelease
  ptrace process_vm_readv process_vm_writev restart_syscall rseq rt_sigaction rt_sigpending
  rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
  rt_tgsigqueueinfo seccomp set_robust_list set_thread_area set_tid_address setfsgid setfsgid32
  setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setpriority setregid setregid32
  setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32
  sigaction sigaltstack signal signalfd signalfd4 sigpending sigprocmask sigreturn sigsuspend tgkill
  tkill vfork wait4 waitid waitpid uretprobe`);

/** Scheduling, which the kernel bounds by RLIMIT_NICE and RLIMIT_RTPRIO. */
const SCHEDULING = words(`
  getcpu sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
  sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
  sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield`);

/** Time: reading clocks, sleeping, timers. Setting the clock needs CAP_SYS_TIME. */
const TIME = words(`
  adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
  clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer
  time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
  timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
  times`);

/** Waiting for several things, futexes and asynchronous reads (io_uring stays closed). */
const WAITING = words(`
  epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
  epoll_wait_old eventfd eventfd2 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake
  io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit poll ppoll
  ppoll_time64 pselect6 pselect6_time64 select _newselect`);

/**
 * Sockets; socket itself has rules of its own below. They don't hold for socketcall, whose arguments lie
 * where no filter can look; but without it the 32-bit programs of most distributions have no network.
 * There AppArmor's default profile keeps AF_ALG shut.
 */
const SOCKETS = words(`
  accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg
  recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair`);

/** System V and POSIX inter-process communication, in the sandbox's IPC namespace. */
const IPC = words(`
  ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
  mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop
  semtimedop_time64 shmat shmctl shmdt shmget`);

/** Reading about the system, and the machine's own odds and ends. */
const SYSTEM = words(`
  arch_prctl arm_fadvise64_64 breakpoint cacheflush getrandom modify_ldt set_tls sysinfo uname
  lsm_get_self_attr lsm_list_modules lsm_set_self_attr`);

/** What a capability of the container opens besides (capabilities(7)). */
const BY_CAPABILITY: Readonly<Record<string, readonly string[]>> = {
  CAP_DAC_READ_SEARCH: words('open_by_handle_at'),
  CAP_SYS_ADMIN: words(`
    bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr
    move_mount open_tree open_tree_attr perf_event_open quotactl quotactl_fd setdomainname
    sethostname setns syslog umount umount2 unshare`),
  CAP_SYS_BOOT: words('reboot'),
  CAP_SYS_CHROOT: words('chroot'),
  CAP_SYS_MODULE: words('delete_module finit_module init_module'),
  CAP_SYS_PACCT: words('acct'),
  CAP_SYS_PTRACE: words('kcmp pidfd_getfd process_madvise'),
  CAP_SYS_RAWIO: words('ioperm iopl'),
  CAP_SYS_TIME: words('clock_settime clock_settime64 settimeofday stime'),
  CAP_SYS_TTY_CONFIG: words('vhangup'),
  CAP_SYS_NICE: words('get_mempolicy mbind set_mempolicy set_mempolicy_home_node'),
  CAP_SYSLOG: words('syslog'),
  CAP_BPF: words('bpf'),
  CAP_PERFMON: words('perf_event_open'),
};

/**
 * sys/socket.h. Closed are AF_ALG (38), the kernel's own cryptography, which has been a way out of a
 * container (CVE-2026-31431), and AF_VSOCK (40), which knows no network namespace and reaches a
 * hypervisor's other guests: neither is of a namespace, so no capability opens them. Those between and
 * behind are named one by one, as far as Linux has any (AF_MCTP). `greater than 40` would let AF_ALG in:
 * a filter compares the whole register, of which the kernel takes the lower half. And each is a rule of
 * its own, for engines take several conditions on one argument as alternatives.
 */
const AF_ALG = 38;
const FAMILIES_BEYOND_ALG = [39, 41, 42, 43, 44, 45];

/**
 * The personalities that change nothing about security (personality(2)): Linux, a 32-bit uname,
 * both with and without the 2.6 version, and the question for the current one.
 */
const PERSONALITIES = [0x0, 0x0008, 0x20000, 0x20008, 0xffffffff];

/**
 * clone(2): every CLONE_NEW* flag that makes a namespace but CLONE_NEWTIME, which clone can't take.
 */
const CLONE_NEW_ANY = 0x7e020000;

const ALWAYS: readonly SpecSyscallRule[] = [
  {
    names: [
      ...FILES,
      ...MEMORY,
      ...PROCESSES,
      ...SCHEDULING,
      ...TIME,
      ...WAITING,
      ...SOCKETS,
      ...IPC,
      ...SYSTEM,
    ],
    action: ALLOW,
  },
  {
    names: ['socket'],
    action: ALLOW,
    args: [{ index: 0, value: AF_ALG, op: 'SCMP_CMP_LT' }],
  },
  ...FAMILIES_BEYOND_ALG.map((value) => ({
    names: ['socket'],
    action: ALLOW,
    args: [{ index: 0, value, op: 'SCMP_CMP_EQ' }],
  })),
  ...PERSONALITIES.map((value) => ({
    names: ['personality'],
    action: ALLOW,
    args: [{ index: 0, value, op: 'SCMP_CMP_EQ' }],
  })),
];

/** Without CAP_SYS_ADMIN: threads and processes, but no new namespaces. */
const WITHOUT_ADMIN: readonly SpecSyscallRule[] = [
  {
    names: ['clone'],
    action: ALLOW,
    args: [{ index: 0, value: CLONE_NEW_ANY, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }],
  },
  // A filter can't look into the structure that clone3 is given; ENOSYS makes libc fall back on
  // clone.
  { names: ['clone3'], action: ERRNO, errnoRet: ENOSYS },
];

/** The filter for a container whose bounding set is `capabilities` (names with CAP_). */
export function defaultSeccomp(
  capabilities: readonly string[],
  arch: 'x64' | 'arm64',
): SpecSeccomp {
  const opened = new Set(capabilities.flatMap((name) => BY_CAPABILITY[name] ?? []));
  return {
    defaultAction: ERRNO,
    defaultErrnoRet: EPERM,
    architectures: ARCHITECTURES[arch],
    syscalls: [
      ...ALWAYS,
      ...(opened.size === 0 ? [] : [{ names: [...opened], action: ALLOW }]),
      ...(capabilities.includes('CAP_SYS_ADMIN') ? [] : WITHOUT_ADMIN),
    ],
  };
}
