// The kind of HTTP server that services have for what answers from memory: no schemas, no log of its
// own.

import fastify, { type FastifyInstance } from 'fastify';

/** No route has a schema: without these fastify loads ajv and fast-json-stringify, 2 MB a service. */
const NO_COMPILERS = { buildValidator: noCompiler, buildSerializer: noCompiler };

/** A server that does not listen yet; its end closes the connections that there are. */
export function createHttpServer(): FastifyInstance {
  return fastify({
    logger: false,
    forceCloseConnections: true,
    schemaController: { compilersFactory: NO_COMPILERS },
  });
}

function noCompiler(): never {
  throw new Error('no route of a service has a schema');
}
