// The functions of the C library that Node lacks, loaded once, at the first use, through koffi.
// Only synchronous calls are offered: koffi's asynchronous ones run on pool threads, which a call
// like unshare(2) would leave behind in another namespace.
import { createRequire } from 'node:module';
import { systemError } from './errno.ts';

export interface Libc {
  /** The errno of the last call on this thread. */
  errno(): number;
  mount(
    source: string,
    target: string,
    filesystem: string | null,
    flags: number,
    data: string | null,
  ): number;
  umount2(target: string, flags: number): number;
  unshare(flags: number): number;
  setns(fd: number, kind: number): number;
  sethostname(name: Uint8Array, length: number): number;
  socket(domain: number, type: number, protocol: number): number;
  sendto(
    fd: number,
    data: Uint8Array,
    length: number,
    flags: number,
    address: Uint8Array,
    addressLength: number,
  ): number;
  ioctl(fd: number, request: number, kind: 'void *', argument: Uint8Array): number;
  ioctl(fd: number, request: number, kind: 'int', argument: number): number;
  connect(fd: number, address: Uint8Array, length: number): number;
  bind(fd: number, address: Uint8Array, length: number): number;
  listen(fd: number, backlog: number): number;
  getsockopt(
    fd: number,
    level: number,
    option: number,
    value: Uint8Array,
    length: Uint32Array,
  ): number;
  accept4(fd: number, address: null, length: null, flags: number): number;
  recvmsg(fd: number, message: Uint8Array, flags: number): number;
  /** Where the bytes of a buffer are, for structures that point to others; good for one call. */
  address(buffer: Uint8Array): bigint;
  dup3(from: number, to: number, flags: number): number;
  fcntl(fd: number, command: number, kind: 'int', argument: number): number;
  fchdir(fd: number): number;
  chdir(path: string): number;
  flock(fd: number, operation: number): number;
  pipe2(fds: Int32Array, flags: number): number;
  poll(fds: Uint8Array, count: number, timeoutMs: number): number;
  mknod(path: string, mode: number, device: number): number;
  waitpid(pid: number, status: Int32Array, options: number): number;
  kill(pid: number, signal: number): number;
  prctl(option: number, a: number, b: number, c: number, d: number): number;
  /** syscall(2) with up to four integer arguments: for calls that glibc 2.34 does not wrap. */
  syscall(number: number, a: number, b: number, c: number, d: number): number;
  posix_spawn(
    pid: Int32Array,
    path: string,
    actions: Uint8Array,
    attributes: Uint8Array,
    argv: readonly (string | null)[],
    envp: readonly (string | null)[],
  ): number;
  posix_spawn_file_actions_init(actions: Uint8Array): number;
  posix_spawn_file_actions_destroy(actions: Uint8Array): number;
  posix_spawn_file_actions_adddup2(actions: Uint8Array, from: number, to: number): number;
  posix_spawn_file_actions_addopen(
    actions: Uint8Array,
    fd: number,
    path: string,
    flags: number,
    mode: number,
  ): number;
  posix_spawn_file_actions_addclose(actions: Uint8Array, fd: number): number;
  posix_spawn_file_actions_addchdir_np(actions: Uint8Array, path: string): number;
  posix_spawn_file_actions_addclosefrom_np(actions: Uint8Array, from: number): number;
  posix_spawnattr_init(attributes: Uint8Array): number;
  posix_spawnattr_destroy(attributes: Uint8Array): number;
  posix_spawnattr_setflags(attributes: Uint8Array, flags: number): number;
  posix_spawnattr_setsigdefault(attributes: Uint8Array, set: Uint8Array): number;
  posix_spawnattr_setsigmask(attributes: Uint8Array, set: Uint8Array): number;
  sigfillset(set: Uint8Array): number;
  malloc_trim(padBytes: number): number;
  klogctl(action: number, text: Uint8Array, length: number): number;
}

const DECLARATIONS: readonly string[] = [
  'int mount(const char *, const char *, const char *, unsigned long, const char *)',
  'int umount2(const char *, int)',
  'int unshare(int)',
  'int setns(int, int)',
  'int sethostname(void *, size_t)',
  'int socket(int, int, int)',
  'long sendto(int, const void *, size_t, int, const void *, unsigned int)',
  'int ioctl(int, unsigned long, ...)',
  'int fcntl(int, int, ...)',
  'int connect(int, void *, unsigned int)',
  'int bind(int, void *, unsigned int)',
  'int listen(int, int)',
  'int getsockopt(int, int, int, void *, void *)',
  'int accept4(int, void *, void *, int)',
  'long recvmsg(int, void *, int)',
  'int dup3(int, int, int)',
  'int fchdir(int)',
  'int chdir(const char *)',
  'int flock(int, int)',
  'int pipe2(void *, int)',
  'int poll(void *, unsigned long, int)',
  'int mknod(const char *, unsigned int, uint64_t)',
  'int waitpid(int, void *, int)',
  'int kill(int, int)',
  'int prctl(int, unsigned long, unsigned long, unsigned long, unsigned long)',
  'long syscall(long, long, long, long, long)',
  'int posix_spawn(void *, const char *, void *, void *, const char **, const char **)',
  'int posix_spawn_file_actions_init(void *)',
  'int posix_spawn_file_actions_destroy(void *)',
  'int posix_spawn_file_actions_adddup2(void *, int, int)',
  'int posix_spawn_file_actions_addopen(void *, int, const char *, int, unsigned int)',
  'int posix_spawn_file_actions_addclose(void *, int)',
  'int posix_spawn_file_actions_addchdir_np(void *, const char *)',
  'int posix_spawn_file_actions_addclosefrom_np(void *, int)',
  'int posix_spawnattr_init(void *)',
  'int posix_spawnattr_destroy(void *)',
  'int posix_spawnattr_setflags(void *, short)',
  'int posix_spawnattr_setsigdefault(void *, void *)',
  'int posix_spawnattr_setsigmask(void *, void *)',
  'int sigfillset(void *)',
  'int malloc_trim(size_t)',
  'int klogctl(int, void *, int)',
];

let loaded: Libc | undefined;

/** The C library (glibc 2.34 or later). Throws when it or one of its functions is missing. */
export function libc(): Libc {
  if (loaded === undefined) {
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi');
    const library = koffi.load('libc.so.6');
    const functions: Record<string, unknown> = {
      errno: () => koffi.errno(),
      address: (buffer: Uint8Array) => koffi.address(buffer),
    };
    for (const declaration of DECLARATIONS) {
      const name = declaration.slice(0, declaration.indexOf('(')).split(' ').at(-1) ?? '';
      functions[name] = library.func(declaration);
    }
    loaded = functions as unknown as Libc;
  }
  return loaded;
}

/** Passes a result on, or throws the error that errno tells when it is negative. */
export function checked(result: number, syscall: string, detail: string): number {
  if (result < 0) throw systemError(syscall, libc().errno(), detail);
  return result;
}
