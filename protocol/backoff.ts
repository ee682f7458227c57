/** First window of the reconnect delay, milliseconds: long enough not to spin, short enough not to be felt. */
const BACKOFF_BASE_MILLIS = 100;

/** Widest window, milliseconds: a returned agent is found within 10 s, and 1,000 controllers then ask 200 times a second. */
export const BACKOFF_CAP_MILLIS = 10_000;

/**
 * Full jitter: the delay before reconnect attempt `attempt` (0 is the first) is uniform in
 * [0, min(cap, base * 2^attempt)), so that controllers which lost the agent together do not return together.
 * Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
 * @param random uniform in [0, 1)
 */
export function reconnectDelayMillis(attempt: number, random: number): number {
  return random * Math.min(BACKOFF_CAP_MILLIS, BACKOFF_BASE_MILLIS * 2 ** attempt);
}
