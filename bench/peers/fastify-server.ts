import type { AddressInfo } from 'node:net';
import fastify from 'fastify';
import { announcePort } from '../server-process.ts';
import { modelOfArguments } from './model.ts';

/** Fastify with JSON: schemas for body and reply, so that it validates and writes by compiled code; no logger. */
const model = await modelOfArguments();
const { featureCount } = model;

const app = fastify({ logger: false });
app.post<{ Body: { features: number[] } }>(
  '/predict',
  {
    schema: {
      body: {
        type: 'object',
        required: ['features'],
        properties: { features: { type: 'array', minItems: featureCount, maxItems: featureCount, items: { type: 'number' } } },
      },
      response: { 200: { type: 'object', properties: { prediction: { type: 'number' } } } },
    },
  },
  async ({ body }) => ({ prediction: await model.predict(Float32Array.from(body.features)) }),
);
await app.listen({ host: '127.0.0.1', port: 0 });
announcePort((app.server.address() as AddressInfo).port);
