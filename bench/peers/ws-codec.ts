import { pack, unpack } from 'msgpackr';

/** The messages of the WebSocket peer, as a user would write them: msgpackr maps. The features as bytes, the faster of its two ways. */
interface PeerRequest {
  readonly id: number;
  readonly features: Uint8Array;
}

interface PeerReply {
  readonly id: number;
  readonly prediction: number;
}

export const packRequest = (request: PeerRequest): Uint8Array => pack(request);
export const unpackRequest = (bytes: Uint8Array): PeerRequest => unpack(bytes) as PeerRequest;
export const packReply = (reply: PeerReply): Uint8Array => pack(reply);
export const unpackReply = (bytes: Uint8Array): PeerReply => unpack(bytes) as PeerReply;
