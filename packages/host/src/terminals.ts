// Pseudo terminals (pty(7)): the slave goes to a child, the master is a stream of ours.

import { closeSync, constants, openSync } from 'node:fs';
import type { Socket } from 'node:net';
import { readRest, streamOfDescriptor } from './descriptor-stream.ts';
import { checked, libc } from './libc.ts';

export interface TerminalSize {
  readonly columns: number;
  readonly rows: number;
}

export interface Terminal {
  /** For SpawnOptions.fds. */
  readonly slaveFd: number;
  /** Ours, once the child has its own: the master sees an end when nobody has the slave. */
  closeSlave(): void;
  /**
   * Starts the stream of the master. An end, or an error EIO, means that the last slave is closed;
   * then `readRest` has what is left.
   */
  openMaster(): Socket;
  /**
   * What was written before the last slave was closed and the stream did not get (descriptor-stream.ts):
   * some 70 KiB at most, what the kernel holds for a terminal.
   */
  readRest(): Buffer;
  /** Whoever is in the foreground of the terminal is told by SIGWINCH. Nothing once it is closed. */
  resize(size: TerminalSize): void;
  /**
   * The signals that its line discipline makes of these bytes now, as of Ctrl-C; for a terminal that
   * controls nobody, whose kernel sends them to nobody.
   */
  signalsOf(input: Uint8Array): NodeJS.Signals[];
  /** Closes what is open, the stream too. */
  close(): void;
}

/** From <asm-generic/ioctls.h>; the same on x86-64 and arm64. */
const TCGETS = 0x5401;
const TCSETS = 0x5402;
const TIOCSWINSZ = 0x5414;
const TIOCSPTLCK = 0x40045431;
const TIOCGPTPEER = 0x5441;
const O_CLOEXEC = 0o2000000;
const F_DUPFD_CLOEXEC = 1030;
const F_GETFL = 3;
const F_SETFL = 4;
/** struct termios of <asm-generic/termbits.h>: four flag words, the discipline, 19 characters. */
const TERMIOS_BYTES = 36;
const C_CC_OFFSET = 17;
const VTIME = 5;
const VMIN = 6;
/** Of c_iflag, c_oflag, c_cflag and c_lflag, in this order. */
const RAW_FLAGS = [
  // IGNBRK BRKINT PARMRK ISTRIP INLCR IGNCR ICRNL IXON
  { clear: 0x01 | 0x02 | 0x08 | 0x20 | 0x40 | 0x80 | 0x100 | 0x400, set: 0 },
  // OPOST
  { clear: 0x01, set: 0 },
  // CSIZE PARENB; CS8
  { clear: 0x30 | 0x100, set: 0x30 },
  // ISIG ICANON ECHO ECHONL IEXTEN
  { clear: 0x01 | 0x02 | 0x08 | 0x40 | 0x8000, set: 0 },
] as const;
const C_LFLAG_OFFSET = 12;
const ISIG = 0x01;
/** VINTR, VQUIT and VSUSP among the characters. */
const SIGNAL_CHARACTERS = [
  { index: 0, signal: 'SIGINT' },
  { index: 1, signal: 'SIGQUIT' },
  { index: 10, signal: 'SIGTSTP' },
] as const;
const WINSIZE_BYTES = 8;
const SIZE_MAX = 0xffff;

/**
 * Opens a pair. A `raw` one passes every byte as it is (cfmakeraw(3)), for an engine that has a
 * terminal of its own behind it; else it is as a fresh one, with echo and line editing. Throws with an
 * errno code.
 */
export function openTerminal(options: { readonly raw: boolean }): Terminal {
  const masterFlags = constants.O_RDWR | constants.O_NOCTTY | constants.O_NONBLOCK | O_CLOEXEC;
  const opened = { master: openSync('/dev/ptmx', masterFlags), slave: -1 };
  const master = masterOf(opened);
  const closeSlave = () => {
    if (opened.slave >= 0) closeSync(opened.slave);
    opened.slave = -1;
  };
  const close = () => {
    closeSlave();
    master.close();
  };
  try {
    const unlocked = Buffer.alloc(4);
    checked(libc().ioctl(opened.master, TIOCSPTLCK, 'void *', unlocked), 'ioctl', 'TIOCSPTLCK');
    const slaveFlags = constants.O_RDWR | constants.O_NOCTTY | O_CLOEXEC;
    opened.slave = libc().ioctl(opened.master, TIOCGPTPEER, 'int', slaveFlags);
    checked(opened.slave, 'ioctl', 'TIOCGPTPEER');
    if (options.raw) makeRaw(opened.slave);
  } catch (error) {
    close();
    throw error;
  }
  return { ...master, slaveFd: opened.slave, closeSlave, close };
}

function masterOf(opened: { master: number }): Omit<Terminal, 'slaveFd' | 'closeSlave'> {
  let stream: Socket | undefined;
  return {
    openMaster: () => {
      // The stream has a descriptor of its own; this one stays for resizing.
      const copy = libc().fcntl(opened.master, F_DUPFD_CLOEXEC, 'int', 0);
      stream = streamOfDescriptor(checked(copy, 'fcntl', 'F_DUPFD_CLOEXEC of a terminal'));
      return stream;
    },
    readRest: () => Buffer.concat(opened.master < 0 ? [] : readRest(opened.master)),
    resize: ({ columns, rows }) => {
      if (opened.master < 0) return;
      const size = Buffer.alloc(WINSIZE_BYTES);
      size.writeUInt16LE(Math.min(rows, SIZE_MAX), 0);
      size.writeUInt16LE(Math.min(columns, SIZE_MAX), 2);
      checked(libc().ioctl(opened.master, TIOCSWINSZ, 'void *', size), 'ioctl', 'TIOCSWINSZ');
    },
    signalsOf: (input) => (opened.master < 0 ? [] : signalsOf(opened.master, input)),
    close: () => {
      stream?.destroy();
      if (opened.master >= 0) closeSync(opened.master);
      opened.master = -1;
    },
  };
}

/** A terminal of somebody else's by its master, which becomes ours. */
export function adoptTerminal(master: number): Omit<Terminal, 'slaveFd' | 'closeSlave'> {
  const flags = libc().fcntl(master, F_GETFL, 'int', 0);
  libc().fcntl(master, F_SETFL, 'int', flags | constants.O_NONBLOCK);
  return masterOf({ master });
}

function signalsOf(fd: number, input: Uint8Array): NodeJS.Signals[] {
  const termios = Buffer.alloc(TERMIOS_BYTES);
  checked(libc().ioctl(fd, TCGETS, 'void *', termios), 'ioctl', 'TCGETS');
  if ((termios.readUInt32LE(C_LFLAG_OFFSET) & ISIG) === 0) return [];
  // A character that is switched off is zero.
  return SIGNAL_CHARACTERS.filter(({ index }) => {
    const character = termios[C_CC_OFFSET + index] ?? 0;
    return character !== 0 && input.includes(character);
  }).map(({ signal }) => signal);
}

/** As cfmakeraw(3) of the C library has it. */
function makeRaw(fd: number): void {
  const termios = Buffer.alloc(TERMIOS_BYTES);
  checked(libc().ioctl(fd, TCGETS, 'void *', termios), 'ioctl', 'TCGETS');
  for (const [index, { clear, set }] of RAW_FLAGS.entries()) {
    const flags = termios.readUInt32LE(index * 4);
    termios.writeUInt32LE(((flags & ~clear) | set) >>> 0, index * 4);
  }
  termios[C_CC_OFFSET + VMIN] = 1;
  termios[C_CC_OFFSET + VTIME] = 0;
  checked(libc().ioctl(fd, TCSETS, 'void *', termios), 'ioctl', 'TCSETS');
}
