import { ACTIONS, type DecisionFrame, FRAME_KINDS } from '../../protocol/frames.ts';
import type { WireTensor } from '../../protocol/datatype.ts';
import { controlThreadKey } from '../guard/control-thread.ts';
import { estimateNext } from '../guard/estimator.ts';
import { ACTION_FALLBACK, createEvidence, createVerdict, judge, type Evidence, type Verdict } from '../guard/judge.ts';
import { outputRow } from '../infer/model.ts';
import { toWireTensor } from '../infer/tensor.ts';
import type { Request } from './request.ts';

/** Turns a request with its model outputs into a decision. One per serving thread: evidence and verdict are reused. */
export class Decider {
  readonly #evidence: Evidence = createEvidence();
  readonly verdict: Verdict = createVerdict();

  /**
   * @param nowMonotonicMillis performance.now(), against which the deadline is judged
   * @param nowMillis milliseconds since 1970-01-01 UTC
   */
  decide(request: Request, stream: number, sequence: number, nowMonotonicMillis: number, nowMillis: number): DecisionFrame {
    const { frame, bundle } = request;
    const { policy } = bundle;
    const isLate = request.isExpired || (nowMonotonicMillis - request.arrivedMillis) * 1000 > request.deadlineMicros;
    const verdict = this.verdict;
    this.#fill(request, isLate);
    judge(policy, this.#evidence, verdict);
    // The estimate costs a key and a look-up; only an answer that needs it pays.
    if (verdict.action === ACTION_FALLBACK && bundle.isGuarded) {
      this.#estimate(request, nowMillis);
      judge(policy, this.#evidence, verdict);
    }
    return {
      kind: FRAME_KINDS.decision,
      requestId: frame.requestId,
      sequence,
      stream,
      action: ACTIONS[verdict.action],
      reasons: verdict.reasons,
      value: orNull(verdict.value),
      rawValue: orNull(verdict.rawValue),
      correction: orNull(verdict.correction),
      rawCorrection: orNull(verdict.rawCorrection),
      ri: orNull(verdict.ri),
      riThreshold: orNull(policy.riThreshold),
      gsi: orNull(verdict.gsi),
      gsiThreshold: orNull(policy.gsiThreshold),
      bundleId: bundle.bundleIdBytes,
      version: bundle.manifest.version,
      serverTimeMicros: Math.round(nowMillis * 1000),
      outputs: isLate ? null : wantedOutputs(request),
    };
  }

  #fill(request: Request, isLate: boolean): void {
    const evidence = this.#evidence;
    evidence.hasEstimate = false;
    evidence.isStale = false;
    evidence.inputReasons = request.inputReasons;
    evidence.isLate = isLate;
    evidence.laneReasons = request.laneReasons;
    evidence.prediction = request.prediction;
    evidence.correctionOutput = request.correctionOutput;
    evidence.reference = request.reference;
    evidence.gsi = request.gsi;
    evidence.lastApplied = request.frame.lastApplied ?? Number.NaN;
  }

  #estimate(request: Request, nowMillis: number): void {
    const { slot, frame, bundle } = request;
    const state = slot.estimators.get(controlThreadKey(slot.name, frame.context, bundle.policy.threadFields));
    estimateNext(
      state,
      bundle.policy,
      { runNumber: frame.context?.runNumber ?? Number.NaN, nowMillis, input: frame.lastApplied ?? Number.NaN },
      this.#evidence,
    );
  }
}

function orNull(number: number): number | null {
  return Number.isNaN(number) ? null : number;
}

/** The outputs the request asked for, cut to its row; null when it asked for none or the model did not run. */
function wantedOutputs(request: Request): WireTensor[] | null {
  const wanted = request.frame.outputs;
  const { outputs, bundle } = request;
  if (wanted === null || outputs === null) return null;
  const names = wanted.length === 0 ? bundle.manifest.outputs.map((output) => output.name) : wanted;
  return names.flatMap((name) => {
    const tensor = outputs[name];
    return tensor === undefined ? [] : [toWireTensor(name, outputRow(tensor, request.row, request.rows))];
  });
}
