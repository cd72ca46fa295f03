// What this process and this host may do at most.
import { readFileSync } from 'node:fs';

/** By number, from <linux/capability.h>; the kernel only ever appends. */
const CAPABILITIES: readonly string[] = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_DAC_READ_SEARCH',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETPCAP',
  'CAP_LINUX_IMMUTABLE',
  'CAP_NET_BIND_SERVICE',
  'CAP_NET_BROADCAST',
  'CAP_NET_ADMIN',
  'CAP_NET_RAW',
  'CAP_IPC_LOCK',
  'CAP_IPC_OWNER',
  'CAP_SYS_MODULE',
  'CAP_SYS_RAWIO',
  'CAP_SYS_CHROOT',
  'CAP_SYS_PTRACE',
  'CAP_SYS_PACCT',
  'CAP_SYS_ADMIN',
  'CAP_SYS_BOOT',
  'CAP_SYS_NICE',
  'CAP_SYS_RESOURCE',
  'CAP_SYS_TIME',
  'CAP_SYS_TTY_CONFIG',
  'CAP_MKNOD',
  'CAP_LEASE',
  'CAP_AUDIT_WRITE',
  'CAP_AUDIT_CONTROL',
  'CAP_SETFCAP',
  'CAP_MAC_OVERRIDE',
  'CAP_MAC_ADMIN',
  'CAP_SYSLOG',
  'CAP_WAKE_ALARM',
  'CAP_BLOCK_SUSPEND',
  'CAP_AUDIT_READ',
  'CAP_PERFMON',
  'CAP_BPF',
  'CAP_CHECKPOINT_RESTORE',
];

/** OOM_SCORE_ADJ_MIN of <linux/oom.h>. */
const OOM_SCORE_ADJ_MIN = -1000;

/** Names (`CAP_CHOWN`, …) in our own bounding set: "all capabilities" can mean no more. */
export function boundingCapabilities(): string[] {
  return capabilitiesIn('CapBnd');
}

/** Lowest oom_score_adj we may set for a child: our own without CAP_SYS_RESOURCE, else -1000. */
export function oomScoreAdjFloor(): number {
  if (capabilitiesIn('CapEff').includes('CAP_SYS_RESOURCE')) return OOM_SCORE_ADJ_MIN;
  return Number(readFileSync('/proc/self/oom_score_adj', 'latin1'));
}

function capabilitiesIn(set: 'CapBnd' | 'CapEff'): string[] {
  const status = readFileSync('/proc/self/status', 'latin1');
  const digits = new RegExp(`^${set}:\\s*([0-9a-f]+)`, 'm').exec(status)?.[1] ?? '0';
  const bits = BigInt(`0x${digits}`);
  return CAPABILITIES.filter((_, number) => (bits >> BigInt(number)) & 1n);
}
