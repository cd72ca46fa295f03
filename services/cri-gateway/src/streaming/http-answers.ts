// What the streaming server says in plain HTTP: to a client whose upgrade is refused, or who wants
// none. Not a word of what was asked for, as whoever gets it has no token.

import type { Duplex } from 'node:stream';

/** Status lines of RFC 9110 that are used. */
const REASONS = { 400: 'Bad Request', 403: 'Forbidden', 404: 'Not Found' } as const;
export type RefusalCode = keyof typeof REASONS;

/** Answers an upgrade with a status and a sentence, and ends the connection. */
export function refuseUpgrade(
  socket: Duplex,
  code: RefusalCode,
  sentence: string,
  headers: readonly string[] = [],
): void {
  const body = `${sentence}\n`;
  const lines = [
    `HTTP/1.1 ${code} ${REASONS[code]}`,
    'Connection: close',
    'Content-Type: text/plain; charset=utf-8',
    `Content-Length: ${Buffer.byteLength(body)}`,
    ...headers,
  ];
  socket.on('error', () => socket.destroy());
  socket.end(`${lines.join('\r\n')}\r\n\r\n${body}`, () => socket.destroy());
}

/** The members of a header that is a list (RFC 9110, 5.6.1). */
export function splitList(value: string | readonly string[] | undefined): string[] {
  return [value ?? []]
    .flat()
    .flatMap((line) => line.split(','))
    .map((member) => member.trim())
    .filter((member) => member !== '');
}
