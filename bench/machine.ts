import { arch, cpus, loadavg, release, type } from 'node:os';

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly node: string;
  readonly os: string;
  /** Processes that wanted to run over the last minute, before the bench began. More than 0.5 a core means neighbours. */
  readonly loadAverage: number;
  readonly date: string;
}

export function describeMachine(): Machine {
  const processors = cpus();
  return {
    cpu: (processors[0]?.model ?? 'unknown').trim(),
    cores: processors.length,
    node: process.version,
    os: `${type()} ${release()} ${arch()}`,
    loadAverage: loadavg()[0] ?? 0,
    date: new Date().toISOString(),
  };
}

export function machineText({ cpu, cores, node, os, loadAverage, date }: Machine): string {
  return `machine: ${cpu}, ${cores} cores, Node ${node}, ${os}, load ${loadAverage.toFixed(2)}, ${date}`;
}
