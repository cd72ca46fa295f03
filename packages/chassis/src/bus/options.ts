// How a service connects to NATS: which server, as whom, and how it comes back.

import { join } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import { readFileIfExists } from '@cribus/host/files.ts';
import { type ConnectionOptions, nkeyAuthenticator } from '@nats-io/transport-node';
import type { ConnectOptions } from '../bus.ts';

const CONNECT_TIMEOUT_MS = 2_000;
/** A server that is killed is noticed at once by its socket; one that hangs, after two of these. */
const PING_INTERVAL_MS = 5_000;
const RECONNECT_WAIT_MS = 100;
const RECONNECT_JITTER_MS = 50;

/** Credentials: the service's nkey seed where there is one, else those in the URL. */
export async function connectionOptions(options: ConnectOptions): Promise<ConnectionOptions> {
  const urls = options.url.split(',').map((text) => {
    if (!URL.canParse(text)) {
      throw new Failure('invalid_argument', 'nats.url: must be like nats://host:port');
    }
    return new URL(text);
  });
  const [first] = urls;
  const seed =
    options.credentialsDirectory === ''
      ? undefined
      : await readFileIfExists(join(options.credentialsDirectory, `${options.service}.nk`));
  const user = decodeURIComponent(first?.username ?? '');
  const pass = decodeURIComponent(first?.password ?? '');
  return {
    servers: urls.map((url) => `${url.hostname}:${url.port === '' ? '4222' : url.port}`),
    name: options.service,
    inboxPrefix: `_INBOX_${options.service}`,
    reconnect: true,
    maxReconnectAttempts: -1,
    reconnectTimeWait: RECONNECT_WAIT_MS,
    reconnectJitter: RECONNECT_JITTER_MS,
    pingInterval: PING_INTERVAL_MS,
    maxPingOut: 2,
    timeout: CONNECT_TIMEOUT_MS,
    // A server that restarts may refuse credentials for a moment; giving up would be for ever.
    ignoreAuthErrorAbort: true,
    ignoreClusterUpdates: true,
    ...(first?.protocol === 'tls:' ? { tls: {} } : {}),
    ...(seed === undefined
      ? user === ''
        ? {}
        : pass === ''
          ? { token: user }
          : { user, pass }
      : { authenticator: nkeyAuthenticator(Buffer.from(seed.toString('utf8').trim())) }),
  };
}
