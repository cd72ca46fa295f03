// Connections that are forwarded into pods, over SPDY and over SPDY in a WebSocket.

import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:net';
import {
  NamespaceMode,
  PortForwardRequest,
  StopPodSandboxRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { dialChannels } from '@cribus/cri-gateway/streaming/testing/channel-client.ts';
import type {
  SpdyTestClient,
  TestStream,
} from '@cribus/cri-gateway/streaming/testing/spdy-client.ts';
import { describe, it } from 'mocha';
import { failureOf } from './harness/image-calls.ts';
import { GIB, watchLargeTransfer } from './harness/large-transfer.ts';
import { exec, runPod } from './harness/pods.ts';
import { eventually, readLog } from './harness/stack.ts';
import { forward, openForwarding, pumpBytes } from './harness/streams.ts';
import { HANDLERS, stackSuite } from './harness/suite.ts';

const MIB = 1024 * 1024;
const PORTS = [8080, 8081, 8082, 8083, 8084, 8085, 8086, 8087, 8088, 8089] as const;
/**
 * Each of the ports sends one connection after another back what it gets, until the client ends it.
 * Not by `nc -e`: a program that reads a socket of a Sentry on the host's network gets EAGAIN from
 * it, while nc polls.
 */
const ECHO = [
  "trap 'exit 0' TERM",
  `for p in ${PORTS.join(' ')}; do mkfifo /tmp/$p`,
  'while :; do nc -l -p $p </tmp/$p | cat >/tmp/$p; done & done',
  'while :; do sleep 0.05; done',
].join('\n');
/** The same for one port and many connections, with large pieces. */
const FAST_ECHO =
  "trap 'exit 0' TERM; nc -ll -p 8080 -e dd bs=64k 2>/dev/null & while :; do sleep 0.05; done";

/** What a connection answers to a text; shorter when it ends too early. */
function answerTo(data: TestStream, text: string): Promise<string> {
  return new Promise((resolve) => {
    let got = '';
    data.onData((piece) => {
      got += piece.toString();
      if (got.length >= text.length) resolve(got);
    });
    void data.ended.then(() => resolve(got));
    data.write(text);
  });
}

/** A connection that was answered: until then the server may not listen yet, or again. */
function connected(client: SpdyTestClient, port: number): Promise<TestStream> {
  return eventually(`port ${port} answers`, async () => {
    const { data } = await forward(client, port);
    return (await answerTo(data, 'hello')) === 'hello' && data;
  });
}

describe('forwarded ports', () => {
  const suite = stackSuite();

  for (const handler of HANDLERS) {
    it(`reach a pod of ${handler} over SPDY and over WebSockets, many at once, each to its own end`, async () => {
      const { stack, cri, image } = suite;
      const pod = await runPod(stack, { image, script: ECHO, handler });
      for (const transport of ['SPDY', 'WebSocket'] as const) {
        const client = await openForwarding(cri, pod.podId, transport);
        const connections = await Promise.all(PORTS.map((port) => connected(client, port)));
        const answered = await Promise.all(
          connections.map(async (data, at) => {
            const text = `${transport} ${PORTS[at]} `.repeat(5_000);
            return (await answerTo(data, text)) === text;
          }),
        );
        assert.ok(!answered.includes(false), `${transport}: ${answered}`);
        client.destroy();
      }
      const listening = await openForwarding(cri, pod.podId);
      (await connected(listening, PORTS[0])).end();
      listening.destroy();
      const request = PortForwardRequest.fromPartial({ podSandboxId: pod.podId, port: [8080] });
      const answer = await eventually('an answer by channels', async () => {
        const { url } = await cri.call('portForward', request);
        const channels = await dialChannels(url, ['v4.channel.k8s.io']);
        channels.send(0, 'by channels');
        const got = await channels.until(0, 2 + 'by channels'.length).catch(() => undefined);
        channels.destroy();
        return got;
      });
      assert.equal(answer.subarray(2).toString(), 'by channels');
      assert.equal(answer.readUInt16LE(0), 8080);
    });

    it(`say on the error stream of one connection that nobody listens in a pod of ${handler}, and serve the next`, async () => {
      const { stack, cri, image } = suite;
      const pod = await runPod(stack, { image, script: ECHO, handler });
      const client = await openForwarding(cri, pod.podId);
      const nobody = await forward(client, 9);
      assert.match((await nobody.error.all).toString(), /port 9 .*refused/i);
      assert.equal(await nobody.data.ended, 'reset');
      await connected(client, 8080);
      client.destroy();
    });

    it(`pass a half-close on in both directions, to a pod of ${handler}`, async () => {
      const { stack, cri, image } = suite;
      const script =
        "trap 'exit 0' TERM; while :; do nc -l -p 8081 -e sh -c 'cat | wc -c'; done & while :; do sleep 0.05; done";
      const pod = await runPod(stack, { image, script, handler });
      await eventually('the server counts', async () => {
        const client = await openForwarding(cri, pod.podId);
        const { data } = await forward(client, 8081);
        data.write('12345');
        data.end();
        const counted = (await data.all).toString().trim();
        client.destroy();
        return counted === '5';
      });
    });

    it(`end when the server has said all, also for a client that can't end its own half alone, in a pod of ${handler}`, async () => {
      const { stack, cri, image } = suite;
      // This nc ends its half after the answer, and itself once the client's has ended.
      const script =
        "trap 'exit 0' TERM; while :; do echo answer | nc -l -p 8083 >/dev/null; done & while :; do sleep 0.05; done";
      const pod = await runPod(stack, { image, script, handler });
      const client = await openForwarding(cri, pod.podId);
      await eventually('an answer, and the end of the errors with it', async () => {
        const { data, error } = await forward(client, 8083);
        const [answer, said] = await Promise.all([data.all, error.all]);
        data.end();
        return answer.toString() === 'answer\n' && said.length === 0;
      });
      await eventually('an answer after a reset', async () => {
        const { data, error } = await forward(client, 8083);
        const answer = await data.all;
        data.reset();
        await error.all;
        return answer.toString() === 'answer\n';
      });
      client.destroy();
      const request = PortForwardRequest.fromPartial({ podSandboxId: pod.podId, port: [8083] });
      await eventually('an answer by channels, and their end', async () => {
        const { url } = await cri.call('portForward', request);
        const channels = await dialChannels(url, ['v4.channel.k8s.io']);
        assert.equal(await channels.closed, 1000);
        return channels.received(0).subarray(2).toString() === 'answer\n';
      });
    });
  }

  for (const transport of ['SPDY', 'WebSocket'] as const) {
    it(`carry one GiB into a pod and back over ${transport}, intact and with flat memory`, async () => {
      const { stack, cri, image } = suite;
      const pod = await runPod(stack, { image, script: FAST_ECHO });
      const pids = [await stack.pidOf('cri-gateway'), await stack.pidOf('runtime-runc')];
      const client = await openForwarding(cri, pod.podId, transport);
      const data = await connected(client, 8080);
      const transfer = watchLargeTransfer(pids);
      data.onData(transfer.take);
      const { socket } = client.wire;
      const sent = pumpBytes({ write: data.write, end: () => undefined, socket }, GIB);
      await Promise.race([transfer.whole, data.ended]);
      await transfer.assertIntactAndFlat(sent);
      client.destroy();
    });
  }

  // Only this way: writing to a full socket, too, a program in such a Sentry gets EAGAIN for.
  it('carry 32 MiB into a pod of gvisor intact', async () => {
    const { stack, cri, image } = suite;
    const script = "trap 'exit 0' TERM; nc -l -p 8080 | sha256sum & while :; do sleep 0.05; done";
    const pod = await runPod(stack, { image, script, handler: 'gvisor' });
    const sent = await eventually(
      'the server takes it',
      async () => {
        const client = await openForwarding(cri, pod.podId);
        const { data, error } = await forward(client, 8080);
        const refused = error.all.then((said) => said.length > 0);
        const { socket } = client.wire;
        const pumped = pumpBytes({ write: data.write, end: data.end, socket }, 32 * MIB);
        if (await refused) return undefined;
        client.destroy();
        return pumped;
      },
      60_000,
    );
    await eventually('the digest', async () => {
      return (await readLog(pod.logPath)).some((line) => line.text === `${sent}  -`);
    });
  });

  it('reach the host from a pod on its network, also where only loopback is listened on', async () => {
    const { stack, cri, image } = suite;
    const server: Server = createServer((socket) => socket.end('from the host'));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    assert.ok(address !== null && typeof address === 'object');
    const hostNetwork = {
      linux: { securityContext: { namespaceOptions: { network: NamespaceMode.NODE } } },
    };
    const script = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
    const pod = await runPod(stack, { image, script, pod: hostNetwork });
    const client = await openForwarding(cri, pod.podId);
    const { data } = await forward(client, address.port);
    assert.equal((await data.all).toString(), 'from the host');
    client.destroy();
    await new Promise((resolve) => server.close(resolve));
  });

  it('hang up on the server in the pod when the client vanishes', async () => {
    const { stack, cri, image } = suite;
    const script =
      "trap 'exit 0' TERM; nc -ll -p 8082 -e sh -c 'touch /tmp/open; cat; rm /tmp/open' & while :; do sleep 0.05; done";
    const pod = await runPod(stack, { image, script });
    const client = await eventually('the connection is open', async () => {
      const trying = await openForwarding(cri, pod.podId);
      const { data } = await forward(trying, 8082);
      data.write('x');
      const answer = await Promise.race([
        new Promise((resolve) => data.onData(resolve)),
        data.ended.then(() => undefined),
      ]);
      if (answer !== undefined) return trying;
      trying.destroy();
      return undefined;
    });
    client.destroy();
    await eventually('the server is hung up on', async () => {
      const { exitCode } = await exec(cri, pod.containerId, ['test', '-e', '/tmp/open']);
      return exitCode === 1;
    });
  });

  it('hang up on the server in the pod when the client resets one connection, and serve the next', async () => {
    const { stack, cri, image } = suite;
    const script =
      "trap 'exit 0' TERM; nc -ll -p 8084 -e sh -c 'touch /tmp/open; yes; rm /tmp/open' & while :; do sleep 0.05; done";
    const pod = await runPod(stack, { image, script });
    const client = await openForwarding(cri, pod.podId);
    const endless = await eventually('the server sends', async () => {
      const { data } = await forward(client, 8084);
      const sends = await Promise.race([
        new Promise<boolean>((resolve) => data.onData(() => resolve(true))),
        data.ended.then(() => false),
      ]);
      return sends && data;
    });
    endless.reset();
    await eventually('the server is hung up on', async () => {
      const { exitCode } = await exec(cri, pod.containerId, ['test', '-e', '/tmp/open']);
      return exitCode === 1;
    });
    const nobody = await forward(client, 9);
    assert.match((await nobody.error.all).toString(), /port 9 .*refused/i);
    client.destroy();
  });

  it('are refused for a sandbox that is stopped, and for what is no port', async () => {
    const { stack, cri, image } = suite;
    const { podId: podSandboxId } = await runPod(stack, { image, script: ECHO });
    const ask = (port: readonly number[]) =>
      cri.call('portForward', PortForwardRequest.fromPartial({ podSandboxId, port: [...port] }));
    await failureOf(ask([0]), { code: 'INVALID_ARGUMENT', message: /port 0/ });
    await failureOf(ask([65_536]), { code: 'INVALID_ARGUMENT', message: /port 65536/ });
    await cri.call('stopPodSandbox', StopPodSandboxRequest.fromPartial({ podSandboxId }));
    await failureOf(ask([80]), { code: 'FAILED_PRECONDITION', message: /is not ready/ });
  });
});
