import { openBundle } from '../bundles/bundle.ts';
import { type ExternalFile, openSession, type OrtTensors, type Session } from './session.ts';

/** Runs models in a worker thread of the heavy process. Sessions are kept per bundle, the least recently used go first. */

/** Sessions a worker keeps: an agent has few heavy models; each may take hundreds of megabytes. */
const MAX_SESSIONS = 8;

const sessions = new Map<string, Session>();

function sessionOf(bundleId: string, directory: string): Session {
  const known = sessions.get(bundleId);
  sessions.delete(bundleId);
  const session = known ?? open(directory);
  sessions.set(bundleId, session);
  for (const [oldestId, oldest] of sessions) {
    if (sessions.size <= MAX_SESSIONS) break;
    sessions.delete(oldestId);
    oldest.release();
  }
  return session;
}

function open(directory: string): Session {
  const bundle = openBundle(directory);
  const { path, externalData } = bundle.manifest.model;
  const files: ExternalFile[] = externalData.map((file) => ({ path: file, data: bundle.read(file) }));
  return openSession(bundle.read(path), files);
}

/** The piscina task: one run. Outputs are fresh arrays. */
export default function run(task: { bundleId: string; directory: string; feeds: OrtTensors }): OrtTensors {
  const session = sessionOf(task.bundleId, task.directory);
  const fetches = Object.fromEntries(session.outputs.map((output) => [output.name, null]));
  const outputs = session.run(task.feeds, fetches);
  return Object.fromEntries(
    Object.entries(outputs).map(([name, { type, data, dims }]) => [name, { type, data, dims: [...dims], location: 'cpu' as const }]),
  );
}
