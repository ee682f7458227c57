import { describe, expect, test } from 'vitest';
import { startAgent } from '../support/agent.ts';
import { goldenFeatures, shippedBundle } from '../support/models.ts';
import { asDecision, openController, predictFrame } from '../support/raw-socket.ts';

const BUNDLE = shippedBundle('cd-scanner-a-product-x');
const SLOT = 'cd/scanner-a/product-x';
describe('x', () => {
  test('a', async () => {
    const t = performance.now();
    const agent = await startAgent({ slots: { [SLOT]: BUNDLE } });
    console.log('start', performance.now() - t);
    const c = await openController(agent.port);
    console.log(asDecision(await c.ask(predictFrame(1, SLOT, goldenFeatures(BUNDLE)))));
    console.log(agent.log());
    const s = performance.now();
    console.log(await agent.stop(), performance.now() - s, agent.log());
    expect(1).toBe(1);
  });
});
