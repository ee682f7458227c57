/**
 * Every size and count that both sides of the wire agree on, each with the sum that justifies it.
 * A side may advertise smaller values in `welcome`, never larger ones.
 */

const KIBI = 1024;

/** The WebSocket sub-protocol name a controller asks for. */
export const SUBPROTOCOL = 'setpoint.v1';

/** Highest and lowest protocol version this code speaks. */
export const PROTOCOL_VERSION = 1;
export const PROTOCOL_VERSION_OLDEST = 1;

/**
 * Largest frame, bytes. An EDA trace of 64 variables x 1,000 samples x float64 is 512 KB; twice that leaves room for
 * names and context and keeps the worst decode under a few milliseconds.
 */
export const MAX_FRAME_BYTES = 1024 * KIBI;

/** Deepest nesting of arrays and maps. predict -> tensors -> tensor -> shape is 4; the rest is head room. */
export const MAX_DEPTH = 8;

/** Most MessagePack values in one frame: 64 tensors x (4 fields + 8 dimensions + 2 containers) = 896, rounded up. */
export const MAX_NODES = 1024;

/** Longest string, bytes of UTF-8. SEMI E90 object ids are at most 80 characters; 255 holds any of them in UTF-8. */
export const MAX_STRING_BYTES = 255;

/** Longest human text (error message, remedy), bytes of UTF-8. */
export const MAX_TEXT_BYTES = 2048;

/** Most named tensors in one request or decision. */
export const MAX_TENSORS = 64;

/** Most dimensions of one tensor. */
export const MAX_DIMENSIONS = 8;

/** Most requests a connection may have unanswered; the next one is refused as `overloaded`. */
export const MAX_IN_FLIGHT = 1024;

/** Bad frames a connection may send before the agent closes it as hostile or broken. */
export const MAX_BAD_FRAMES = 16;

/** Longest deadline a request may ask for, microseconds (60 s). */
export const MAX_DEADLINE_MICROS = 60_000_000;

/** Most slots of one agent: 150 models in a fab, with room to grow. Bounds welcome and the agent's metrics memory. */
export const MAX_SLOTS = 1024;

/** Most MessagePack values in a frame from the agent: welcome (1 + 5 values + 4 of limits + 1) + MAX_SLOTS x (1 + 7). */
export const MAX_SERVER_NODES = 11 + MAX_SLOTS * 8;
