/** The child's half of processes.ts: a server tells its port once it listens, and ends when its parent is gone. */
export function announcePort(port: number): void {
  process.send?.({ port });
  process.on('disconnect', () => process.exit(0));
}
