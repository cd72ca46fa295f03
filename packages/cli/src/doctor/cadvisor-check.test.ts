import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseConfig } from '@cribus/chassis/config.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { checkCadvisor } from './cadvisor-check.ts';

describe("the doctor's look at the socket for cAdvisor", () => {
  let directory = '';
  let server: Server | undefined;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'cribus-doctor-'));
  });
  afterEach(async () => {
    await new Promise((resolve) => (server === undefined ? resolve(0) : server.close(resolve)));
    server = undefined;
    rmSync(directory, { recursive: true });
  });

  const socket = () => join(directory, 'crio.sock');
  const look = async (text = `[kubelet]\ncadvisor_socket = "${socket()}"`) =>
    (await checkCadvisor(parseConfig(text, { file: 'test', directory }))).map(
      ({ level, text: said }) => [level, said.replace(socket(), 'SOCKET')],
    );
  const serve = async (made: Server) => {
    server = made.listen(socket());
    await new Promise((resolve) => made.once('listening', resolve));
  };
  const answering = (storageRoot: string) =>
    createHttpServer((_request, answer) => {
      answer.end(JSON.stringify({ storage_root: storageRoot }));
    });

  it('says nothing where nobody wants it', async () => {
    assert.deepEqual(await look(''), []);
  });

  it('tells who answers there: nobody, somebody else, or this stack in a place that cAdvisor does not know', async () => {
    assert.deepEqual(await look(), [['problem', 'nobody answers at SOCKET']]);
    await serve(answering('/var/lib/containers/storage'));
    assert.deepEqual(await look(), [['problem', 'another server answers at SOCKET']]);
    await new Promise((resolve) => server?.close(resolve));
    await serve(createServer((connection) => connection.end('no HTTP at all')));
    assert.deepEqual(await look(), [['problem', 'another server answers at SOCKET']]);
    await new Promise((resolve) => server?.close(resolve));
    await serve(answering(join(directory, 'state')));
    assert.deepEqual(await look(), [
      ['warning', 'answered at SOCKET, where cAdvisor does not look'],
    ]);
  });
});
