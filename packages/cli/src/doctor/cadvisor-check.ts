// Whether the kubelet's cAdvisor would find the containers of this stack, where the operator wants it to.

import { request } from 'node:http';
import type { Config } from '@cribus/chassis/config.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { type Finding, ok, problem, warning } from './finding.ts';

const ABOUT = 'cadvisor';
const KEY = 'kubelet.cadvisor_socket';
/** The only place where it looks (cadvisor, container/crio/client.go), by both its names. */
const KNOWN_PATH = /^(\/var)?\/run\/crio\/crio\.sock$/;
const ANSWER_TIMEOUT_MS = 2_000;
/** Ours has some 100 bytes. */
const ANSWER_BYTES_MAX = 64 * 1024;

/** Nothing where the key is not set; else asks at the socket as cAdvisor would. */
export async function checkCadvisor(
  config: Pick<Config, 'kubelet' | 'roots'>,
): Promise<readonly Finding[]> {
  const path = config.kubelet.cadvisor_socket;
  if (path === '') return [];
  const answer = await askInfo(path);
  if (answer === undefined) {
    return [problem(ABOUT, `nobody answers at ${path}`, 'the log of cri-gateway says why')];
  }
  if (storageRootOf(answer) !== config.roots.state) {
    const advice = `end the other runtime, or set ${KEY} = ""`;
    return [problem(ABOUT, `another server answers at ${path}`, advice)];
  }
  if (!KNOWN_PATH.test(path)) {
    const advice = `set ${KEY} = "/var/run/crio/crio.sock"`;
    return [warning(ABOUT, `answered at ${path}, where cAdvisor does not look`, advice)];
  }
  return [ok(ABOUT, `answered at ${path}`)];
}

function storageRootOf(answer: string): string | undefined {
  try {
    return (JSON.parse(answer) as { readonly storage_root?: string } | null)?.storage_root;
  } catch {
    // Whoever answers, it is not in the words of CRI-O.
    return undefined;
  }
}

/** The text of `GET /info`; empty where the answer is none of HTTP, undefined where nobody listens. */
function askInfo(socketPath: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
    const asked = request({ socketPath, path: '/info', signal }, (answer) => {
      let text = '';
      answer.setEncoding('utf8');
      answer.on('data', (chunk: string) => {
        text += chunk;
        if (text.length > ANSWER_BYTES_MAX) answer.destroy();
      });
      answer.on('close', () => resolve(text));
      answer.on('error', () => undefined);
    });
    asked.on('error', (error) =>
      resolve(isErrno(error, 'ENOENT', 'ECONNREFUSED') ? undefined : ''),
    );
    asked.end();
  });
}
