// TCP connections from inside a network namespace: a socket belongs to the namespace in which it was
// made, wherever it is connected and used from then on.

import { Socket } from 'node:net';
import { checked, libc } from './libc.ts';
import { insideNetworkNamespace } from './namespaces.ts';

export interface DialOptions {
  /** Of the network namespace's pin; absent: our own. */
  readonly netns?: string;
  readonly address: '127.0.0.1' | '::1' | (string & {});
  readonly port: number;
  readonly signal: AbortSignal;
}

/** From <sys/socket.h>; the same on x86-64 and arm64. */
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM_CLOEXEC_NONBLOCK = 0o2004001;

/**
 * A connection that can be half closed. Rejects with an errno code: ECONNREFUSED where nobody listens,
 * ENOENT when there is no such namespace; or with the signal's reason.
 */
export async function dialTcp(options: DialOptions): Promise<Socket> {
  const { netns, address, port, signal } = options;
  signal.throwIfAborted();
  const family = address.includes(':') ? AF_INET6 : AF_INET;
  const make = () =>
    checked(
      libc().socket(family, SOCK_STREAM_CLOEXEC_NONBLOCK, 0),
      'socket',
      `for ${address} port ${port}`,
    );
  const fd = netns === undefined ? make() : insideNetworkNamespace(netns, make);
  const socket = new Socket({ fd, allowHalfOpen: true });
  return await new Promise<Socket>((resolve, reject) => {
    const onAbort = () => socket.destroy(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    const settled = () => {
      signal.removeEventListener('abort', onAbort);
      socket.off('error', onError);
    };
    const onError = (error: Error) => {
      settled();
      reject(error);
    };
    socket.on('error', onError);
    socket.connect({ host: address, port }, () => {
      settled();
      socket.setNoDelay(true);
      resolve(socket);
    });
  });
}
