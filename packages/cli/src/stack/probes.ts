// Asks each part whether it serves: the servers in their own protocol, a service over /readyz.

import { get } from 'node:http';
import { connect, type NetConnectOpts } from 'node:net';

const PROBE_TIMEOUT_MS = 1_000;
/** Where a URL names no port. */
const NATS_PORT = 4222;
const REDIS_PORT = 6379;

export interface ProbeResult {
  readonly serving: boolean;
  /** As the server says; empty for services. */
  readonly version: string;
}

const SILENT: ProbeResult = { serving: false, version: '' };

/** nats-server greets with INFO and a JSON object (NATS client protocol). */
export async function probeNats(url: string): Promise<ProbeResult> {
  const parsed = URL.parse(url);
  if (parsed === null) return SILENT;
  const address = { port: Number(parsed.port || NATS_PORT), host: hostOf(parsed) };
  const greeting = await converse(address, '', /^INFO (\{.*\})\s*\r\n/);
  if (greeting === undefined) return SILENT;
  const info = JSON.parse(greeting[1] ?? '{}') as { version?: string };
  return { serving: true, version: info.version ?? '' };
}

/** redis-server tells its version to whoever may know: by the password, else that in the URL. */
export async function probeRedis(url: string, password: string): Promise<ProbeResult> {
  const unix = /^unix:\/\/(.*)$/.exec(url)?.[1];
  const parsed = unix === undefined ? URL.parse(url) : null;
  if (unix === undefined && parsed === null) return SILENT;
  const address =
    unix !== undefined
      ? { path: unix }
      : { port: Number(parsed?.port || REDIS_PORT), host: parsed === null ? '' : hostOf(parsed) };
  const auth = password === '' ? [parsed?.username, parsed?.password].filter(Boolean) : [password];
  const words = `${auth.length === 0 ? '' : `AUTH ${auth.join(' ')}\r\n`}INFO server\r\n`;
  const answer = await converse(address, words, /redis_version:(\S+)/);
  return answer === undefined ? SILENT : { serving: true, version: answer[1] ?? '' };
}

/** URLs write IPv6 addresses in brackets. */
function hostOf(url: URL): string {
  return url.hostname.replace(/^\[(.*)\]$/, '$1');
}

/** True when the service answers 200 on /readyz. */
export function probeService(port: number, address: string): Promise<ProbeResult> {
  return new Promise((done) => {
    const options = { host: address, port, path: '/readyz', timeout: PROBE_TIMEOUT_MS };
    const request = get({ ...options, agent: false }, (response) => {
      response.resume();
      done({ serving: response.statusCode === 200, version: '' });
    });
    request.on('timeout', () => request.destroy());
    request.on('error', () => done(SILENT));
    request.on('close', () => done(SILENT));
  });
}

const ANSWER_BYTES_MAX = 64 * 1024;

/** Sends the words, and answers the first match in what comes back within a second. */
function converse(
  address: NetConnectOpts,
  words: string,
  pattern: RegExp,
): Promise<RegExpExecArray | undefined> {
  return new Promise((done) => {
    let text = '';
    const options = { ...address, timeout: PROBE_TIMEOUT_MS };
    const socket = connect(options, () => socket.write(words));
    const end = (match: RegExpExecArray | undefined) => {
      socket.destroy();
      done(match);
    };
    socket.on('timeout', () => end(undefined));
    socket.on('data', (bytes) => {
      text += bytes.toString('latin1');
      const match = pattern.exec(text);
      if (match !== null || text.length > ANSWER_BYTES_MAX) end(match ?? undefined);
    });
    socket.on('error', () => end(undefined));
    socket.on('close', () => end(undefined));
  });
}
