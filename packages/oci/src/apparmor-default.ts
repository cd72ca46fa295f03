// The AppArmor profile of RuntimeDefault: what a container is kept from besides its namespaces, its
// capabilities and its seccomp filter. A program may do all that those leave, but not mount, not
// touch what of /proc and /sys is the whole host's, not signal or trace what isn't a container, and not
// use the kernel's cryptography by sockets, for which socketcall asks past every seccomp filter.

export const APPARMOR_DEFAULT_NAME = 'cribus-default';

/**
 * In the language of apparmor.d(5), with nothing included. The kernel's own names for a process that
 * may signal a container: the unconfined, and engines that a distribution confines by profiles of their
 * own.
 */
export const APPARMOR_DEFAULT = `
profile ${APPARMOR_DEFAULT_NAME} flags=(attach_disconnected,mediate_deleted) {
  file,
  network,
  deny network alg,
  unix,
  capability,
  umount,

  signal (receive) peer=unconfined,
  signal (receive) peer=runc,
  signal (receive) peer=crun,
  signal (receive) peer=conmon,
  signal (send, receive) peer=${APPARMOR_DEFAULT_NAME},
  ptrace (trace, read, tracedby, readby) peer=${APPARMOR_DEFAULT_NAME},

  deny /proc/{kcore,kmem,mem,sysrq-trigger} rwklx,
  deny /proc/sys/{abi,crypto,debug,dev,sunrpc,user,vm}/** wkl,
  deny /proc/sys/fs/[^m]** wkl,
  deny /proc/sys/kernel/[^ms]** wkl,
  deny /sys/{block,bus,class,dev,devices,hypervisor,module,power}/** wkl,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/[^s]** wkl,
  deny /sys/kernel/security/** rwklx,
}
`;
