import { jsonLine, visible } from './escape.ts';
import { type Finding, recordNames } from './findings.ts';
import { formatMicros, formatMillis } from './times.ts';
import type { VerifyResult } from './verify.ts';

/** The report of a verification: for a person, or as one object of JSON. Pure. */

const KIND_NAMES: Readonly<Record<number, string>> = { 1: 'decisions', 2: 'observations', 3: 'alerts', 4: 'gaps', 5: 'store events' };

export function reportText(result: VerifyResult): string {
  const { findings, chain, head, sequences, checkpoints, anchor } = result;
  const kinds = [...chain.kinds]
    .sort(([one], [other]) => one - other)
    .map(([kind, count]) => `${count} ${KIND_NAMES[kind] ?? `of kind ${kind}`}`);
  const time = (micros: number | null): string => (micros === null ? 'never' : formatMicros(micros));
  const lines = [
    `agent        ${visible(result.agentId ?? 'unknown: no checkpoint names it')}`,
    `key          ${result.keyId}`,
    `log          ${head === null ? 'there is no store' : `${hexOfLog(head.log)}, ${head.index} entries, link ${hexOf(head.link)}`}`,
    `checked      ${chain.entries} entries${kinds.length > 0 ? `: ${kinds.join(', ')}` : ''}`,
    ...(anchor === null ? [] : [`dropped      entries 1 to ${anchor.index}; the chain is checked from there on`]),
    `time         ${time(chain.firstMicros)} to ${time(chain.lastMicros)}`,
    `telemetry    ${chain.telemetryKept} kept, ${chain.telemetryDropped} dropped by retention`,
    `journal      ${result.journalRecords} records that are not stored yet`,
    `checkpoints  ${checkpoints.checked} checked, the newest ${newestText(result)}`,
    ...(checkpoints.tooOld > 0 ? [`             ${checkpoints.tooOld} vouch for entries that retention has dropped`] : []),
    ...(checkpoints.earlier > 0 ? [`             ${checkpoints.earlier} vouch for logs that stood here before`] : []),
    `stated gaps  ${sequences.gapCount}`,
    ...sequences.gaps.map(
      ({ stream, from, to, timeMicros, reason }) =>
        `             ${stream === null ? `entries ${from}..${to} of the log before` : recordNames(stream, from, to)}  ${formatMicros(timeMicros)}  ${visible(reason)}`,
    ),
    ...findings.notes.map((note) => `note         ${visible(note)}`),
    ...findings.list.map((finding) => `FINDING      ${findingText(finding)}`),
    findings.total === 0 ? 'sound' : `NOT SOUND: ${findings.total} finding${findings.total === 1 ? '' : 's'}`,
  ];
  return lines.map((line) => `${line}\n`).join('');
}

function newestText({ checkpoints, head }: VerifyResult): string {
  const { newest } = checkpoints;
  if (newest === null) return 'none';
  const behind = head !== null && newest.log === head.log ? Math.max(0, head.index - newest.index) : null;
  const uncovered = behind === null || behind === 0 ? '' : `; the ${behind} entries behind it are vouched for by none`;
  return `of ${formatMillis(newest.timeMillis)}, entry ${newest.index}${uncovered}`;
}

function findingText({ kind, fromIndex, toIndex, records, timeMicros, detail }: Finding): string {
  const entries = fromIndex === null ? '' : fromIndex === toIndex ? ` entry ${fromIndex}` : ` entries ${fromIndex} to ${toIndex}`;
  const names = records.length === 0 ? '' : ` (${records.join(', ')})`;
  return `${kind}:${entries}${names}${timeMicros === null ? '' : ` ${formatMicros(timeMicros)}`}: ${visible(detail)}`;
}

export function reportJson(result: VerifyResult): string {
  const { findings, chain, head, sequences, checkpoints, anchor } = result;
  const { newest } = checkpoints;
  return jsonLine({
    isSound: findings.total === 0,
    findingCount: findings.total,
    findings: findings.list.map(({ timeMicros, ...rest }) => ({ ...rest, time: timeOf(timeMicros) })),
    notes: findings.notes,
    agentId: result.agentId,
    keyId: result.keyId,
    head: head === null ? null : { log: hexOfLog(head.log), index: head.index, link: hexOf(head.link) },
    droppedTo: anchor?.index ?? 0,
    entries: chain.entries,
    kinds: Object.fromEntries([...chain.kinds].map(([kind, count]) => [KIND_NAMES[kind] ?? String(kind), count])),
    firstIndex: chain.firstIndex,
    firstTime: timeOf(chain.firstMicros),
    lastTime: timeOf(chain.lastMicros),
    telemetryKept: chain.telemetryKept,
    telemetryDropped: chain.telemetryDropped,
    journalRecords: result.journalRecords,
    checkpoints: {
      checked: checkpoints.checked,
      tooOld: checkpoints.tooOld,
      earlierLogs: checkpoints.earlier,
      newest: newest === null ? null : { log: hexOfLog(newest.log), index: newest.index, time: formatMillis(newest.timeMillis) },
    },
    statedGapCount: sequences.gapCount,
    statedGaps: sequences.gaps.map(({ timeMicros, ...rest }) => ({ ...rest, time: timeOf(timeMicros) })),
  });
}

function timeOf(micros: number | null): string | null {
  return micros === null ? null : formatMicros(micros);
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

function hexOfLog(log: bigint): string {
  return log.toString(16).padStart(16, '0');
}
