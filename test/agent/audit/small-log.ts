import { temporaryDirectory } from '../../support/agent.ts';
import { addCheckpoint, openWriter, store, writeSegment } from './log-setup.ts';
import { alertRecord, BUNDLE, contextOf, decisionRecord, gapRecord, observationRecord } from './rows.ts';

export const OTHER_BUNDLE = Uint8Array.from(BUNDLE, (byte, at) => (at < 4 ? byte : 0xee));

/** Six records stored, three in the journal; wafer A was decided twice, measured twice. */
export async function smallLog(): Promise<string> {
  const directory = temporaryDirectory();
  const writer = openWriter(directory);
  const wafer = (substrateId: string): { context: ReturnType<typeof contextOf> } => ({ context: contextOf({ substrateId }) });
  await store(writer, [
    decisionRecord({ sequence: 1, predict: wafer('A') }),
    decisionRecord({ sequence: 2, predict: wafer('B'), decision: { bundleId: OTHER_BUNDLE } }),
    observationRecord(3, wafer('A')),
    alertRecord(4, 'reliance_low', 'cd/x'),
    gapRecord({ from: 5, to: 8 }),
    decisionRecord({ sequence: 9, predict: { context: null } }),
  ]);
  await addCheckpoint(directory, writer);
  await writer.close();
  writeSegment(
    directory,
    [
      decisionRecord({ sequence: 10, predict: wafer('A'), decision: { bundleId: OTHER_BUNDLE } }),
      observationRecord(11, wafer('A')),
      decisionRecord({ sequence: 12, predict: wafer('C') }),
    ],
    { first: 10 },
  );
  return directory;
}
