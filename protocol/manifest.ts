import { z } from 'zod';
import { DATATYPE_NAMES, type Datatype } from './datatype.ts';
import { SetpointError } from './errors.ts';
import { CONTEXT_FIELDS, type Context } from './frames.ts';

/**
 * The bundle manifest: what a bundle holds, what its model takes and gives, and how its answers are guarded.
 * A bundle's id is the SHA-256 of the manifest's exact bytes; the manifest names every other file by SHA-256.
 */
export const MANIFEST_FORMAT = 'setpoint.bundle.v1';
export const MANIFEST_FILE = 'manifest.json';

/** Sizes a bundle may reach. The largest production VM model in the research notes is under 10 MB. */
export const BUNDLE_LIMITS = {
  manifestBytes: 1024 * 1024,
  fileBytes: 512 * 1024 * 1024,
  files: 64,
  features: 16_384,
} as const;

const finite = z.number().finite();
const positive = finite.gt(0);
const name = z.string().min(1).max(255);
const range = z.tuple([finite, finite]).refine(([low, high]) => low < high, { message: 'the first number must be below the second' });

const tensorSchema = z.strictObject({
  name,
  datatype: z.enum(DATATYPE_NAMES as [Datatype, ...Datatype[]]),
  /** -1 is a free dimension. */
  shape: z.array(z.int().min(-1)).max(8),
});

const featureSchema = z.strictObject({
  name,
  unit: z.string().max(64).optional(),
  /** Valid range; a value outside it sends the request to the fallback. */
  min: finite.optional(),
  max: finite.optional(),
});

const roleSchema = z.strictObject({ output: name, unit: z.string().max(64).optional() });

const rolesSchema = z.strictObject({
  /** Output that predicts the metrology value. */
  prediction: roleSchema.optional(),
  /** Output that gives the recipe setting (`form: setting`) or its offset from the baseline (`form: offset`). */
  correction: roleSchema.extend({ form: z.enum(['setting', 'offset']) }).optional(),
  /** Output of the reference model of automatic virtual metrology; with prediction it gives RI. */
  reference: z.strictObject({ output: name }).optional(),
  /** Output with the global similarity index. */
  gsi: z.strictObject({ output: name }).optional(),
});

const relianceSchema = z
  .strictObject({
    /** Mean and standard deviation of the training metrology values, in the value unit. */
    trainingMean: finite,
    trainingStandardDeviation: positive,
    /** E_L: largest tolerable error as a fraction of the training mean. */
    maximalErrorFraction: positive.optional(),
    /** Largest tolerable error in the value unit; for quantities whose zero is arbitrary. */
    maximalErrorAbsolute: positive.optional(),
    /** RI_T itself. */
    threshold: finite.min(0).max(1).optional(),
  })
  .refine(
    (given) => [given.maximalErrorFraction, given.maximalErrorAbsolute, given.threshold].filter((one) => one !== undefined).length === 1,
    { message: 'give exactly one of maximalErrorFraction, maximalErrorAbsolute, threshold' },
  );

const correctionLimitsSchema = z.strictObject({
  /** The recipe setting in force when nothing corrects, in the correction's unit. */
  baseline: finite,
  /** Qualified window of the setting. */
  window: range,
  /** Largest change from the last applied setting. */
  step: positive.optional(),
  /** Largest distance from the baseline. */
  totalOffset: positive.optional(),
});

const guardSchema = z.strictObject({
  /** Plausible range of the prediction; outside it the fallback answers. */
  predictionRange: range.optional(),
  reliance: relianceSchema.optional(),
  gsiThreshold: positive.optional(),
  correction: correctionLimitsSchema.optional(),
});

const fallbackSchema = z.strictObject({
  estimator: z.enum(['none', 'ewma', 'double-ewma']),
  /** EWMA weight of the intercept, 0 < lambda <= 1. */
  lambda: positive.max(1).optional(),
  /** Weight of the drift term of the double EWMA. */
  driftLambda: positive.max(1).optional(),
  /** Process gain b of y = a + b u, value unit per correction unit. 0 or absent: the estimate ignores the input. */
  processGain: finite.optional(),
  /** Value the process should reach; a correction slot's fallback setting is (target - a) / b. */
  target: finite.optional(),
  /** Value answered by a prediction slot without an estimate, in the value unit. */
  baselineValue: finite.optional(),
  /** An estimate older than this many runs, or seconds, is stale: the baseline answers instead. */
  staleAfterRuns: z.int().positive().optional(),
  staleAfterSeconds: positive.optional(),
  /** An observation further than this from the estimate is recorded as an outlier and not learnt, value unit. */
  outlierDistance: positive.optional(),
  /** Context fields that make one control thread. */
  threadBy: z
    .array(z.enum(CONTEXT_FIELDS as unknown as [keyof Context, ...(keyof Context)[]]))
    .max(CONTEXT_FIELDS.length)
    .optional(),
});

const lineageSchema = z.strictObject({
  trainedFrom: z.string().max(64).optional(),
  trainedTo: z.string().max(64).optional(),
  data: z.string().max(2048).optional(),
  parent: z.string().max(255).optional(),
  trainer: z.string().max(255).optional(),
  metrics: z.record(z.string().max(64), finite).optional(),
  parameters: z.record(z.string().max(64), z.union([z.string().max(1024), finite, z.boolean()])).optional(),
});

/** A path inside the bundle: relative, '/'-separated, no '..', no hidden or absolute part. */
const bundlePath = z
  .string()
  .max(255)
  .regex(/^[A-Za-z0-9_-][A-Za-z0-9._-]*(\/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$/, {
    message: "must be a relative path of letters, digits, '.', '_' and '-'",
  });

const fileSchema = z.strictObject({
  path: bundlePath,
  size: z.int().min(0).max(BUNDLE_LIMITS.fileBytes),
  sha256: z.string().regex(/^[0-9a-f]{64}$/, { message: 'must be 64 lower-case hexadecimal digits' }),
});

const SLOT_KINDS = ['prediction', 'correction', 'prediction+correction', 'tensors'] as const;

/** What an operator writes (`--spec`): the manifest without what the tool finds out itself. */
export const bundleSpecSchema = z.strictObject({
  name,
  version: z
    .string()
    .min(1)
    .max(64)
    .regex(/^[A-Za-z0-9][A-Za-z0-9.+_-]*$/, { message: "must be letters, digits, '.', '+', '_' and '-'" }),
  description: z.string().max(2048).optional(),
  kind: z.enum(SLOT_KINDS),
  features: z.array(featureSchema).max(BUNDLE_LIMITS.features).optional(),
  roles: rolesSchema.default({}),
  guard: guardSchema.default({}),
  fallback: fallbackSchema.optional(),
  lineage: lineageSchema.default({}),
  /** Tolerances of the golden vectors: |got - want| <= atol + rtol * |want|. */
  tolerance: z.strictObject({ rtol: finite.min(0), atol: finite.min(0) }).default({ rtol: 1e-4, atol: 1e-5 }),
  /** ONNX operator domains the model may use beside the default one. */
  domains: z.array(z.enum(['ai.onnx.ml', 'com.microsoft'])).default(['ai.onnx.ml']),
});

export const manifestSchema = bundleSpecSchema.extend({
  format: z.literal(MANIFEST_FORMAT),
  model: z.strictObject({ path: bundlePath, externalData: z.array(bundlePath).max(16) }),
  golden: bundlePath,
  inputs: z.array(tensorSchema).min(1).max(64),
  outputs: z.array(tensorSchema).min(1).max(64),
  files: z.array(fileSchema).min(2).max(BUNDLE_LIMITS.files),
});

export type BundleSpec = z.infer<typeof bundleSpecSchema>;
export type Manifest = z.infer<typeof manifestSchema>;
export type TensorSchema = z.infer<typeof tensorSchema>;

/**
 * Checks what a schema alone cannot: that kind, roles, guard and fallback fit each other. Returns the first defect as
 * {path, message}, or null. The same rules hold for a spec and for a manifest.
 */
export function findContradiction(spec: BundleSpec): { path: string; message: string } | null {
  const { roles, guard, fallback, kind } = spec;
  const predicts = kind.startsWith('prediction');
  const corrects = kind.endsWith('correction');
  const rules: readonly (readonly [boolean, string, string])[] = [
    [predicts !== (roles.prediction !== undefined), 'roles.prediction', `is ${predicts ? 'required' : 'not allowed'} for kind '${kind}'`],
    [corrects !== (roles.correction !== undefined), 'roles.correction', `is ${corrects ? 'required' : 'not allowed'} for kind '${kind}'`],
    [corrects !== (guard.correction !== undefined), 'guard.correction', `is ${corrects ? 'required' : 'not allowed'} for kind '${kind}'`],
    [kind === 'tensors' && fallback !== undefined, 'fallback', "is not allowed for kind 'tensors'"],
    [kind !== 'tensors' && fallback === undefined, 'fallback', `is required for kind '${kind}'`],
    [kind === 'tensors' && Object.keys(roles).length > 0, 'roles', "are not allowed for kind 'tensors'"],
    [predicts && fallback?.baselineValue === undefined, 'fallback.baselineValue', 'is required where the slot predicts'],
    [
      guard.reliance !== undefined && (roles.reference === undefined || !predicts),
      'guard.reliance',
      'needs roles.prediction and roles.reference',
    ],
    [guard.gsiThreshold !== undefined && roles.gsi === undefined, 'guard.gsiThreshold', 'needs roles.gsi'],
    [
      fallback !== undefined && fallback.estimator !== 'none' && fallback.lambda === undefined,
      'fallback.lambda',
      'is required for an EWMA estimator',
    ],
    [
      fallback?.estimator === 'double-ewma' && fallback.driftLambda === undefined,
      'fallback.driftLambda',
      'is required for the double EWMA',
    ],
    [
      corrects && fallback !== undefined && fallback.estimator !== 'none' && !fallback.processGain,
      'fallback.processGain',
      'must be given and not 0 where the slot corrects',
    ],
    [
      corrects && fallback !== undefined && fallback.estimator !== 'none' && fallback.target === undefined,
      'fallback.target',
      'is required where the slot corrects',
    ],
  ];
  const broken = rules.find(([isBroken]) => isBroken);
  return broken === undefined ? null : { path: broken[1], message: broken[2] };
}

/**
 * Parses and checks the exact bytes of a manifest.
 * @throws SetpointError invalid_bundle that names the key, what was found and what is allowed
 */
export function parseManifest(bytes: Uint8Array): Manifest {
  if (bytes.byteLength > BUNDLE_LIMITS.manifestBytes) {
    throw new SetpointError(
      'invalid_bundle',
      `Cannot read ${MANIFEST_FILE}: it has ${bytes.byteLength} bytes, ${BUNDLE_LIMITS.manifestBytes} are allowed`,
      { field: MANIFEST_FILE },
    );
  }
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new SetpointError('invalid_bundle', `Cannot read ${MANIFEST_FILE}: it is not UTF-8 JSON`, { field: MANIFEST_FILE, cause });
  }
  return checkedBy(manifestSchema, value, MANIFEST_FILE);
}

/** As parseManifest, for what an operator wrote. */
export function parseBundleSpec(value: unknown, source: string): BundleSpec {
  return checkedBy(bundleSpecSchema, value, source);
}

/** What a role needs to know of an output. */
type OutputDescription = Pick<TensorSchema, 'name' | 'datatype'> & { readonly shape: readonly number[] };

/**
 * The role outputs a model cannot answer with: each must be FP32 or FP64 with one element a row, since a decision is one
 * number. Returns the first defect as {path, message}, or null.
 */
export function findUnfitRole({ roles }: BundleSpec, outputs: readonly OutputDescription[]): { path: string; message: string } | null {
  for (const [role, given] of Object.entries(roles)) {
    if (given === undefined) continue;
    const path = `roles.${role}.output`;
    const output = outputs.find((one) => one.name === given.output);
    if (output === undefined) {
      return { path, message: `'${given.output}' is no output of the model; ${outputs.map((one) => one.name).join(', ')} are` };
    }
    const row = output.shape[0] === -1 ? output.shape.slice(1) : output.shape;
    const isOneNumber = (output.datatype === 'FP32' || output.datatype === 'FP64') && row.every((dimension) => dimension === 1);
    if (!isOneNumber) {
      const found = `${output.datatype} [${output.shape.join(', ')}]`;
      return { path, message: `must be FP32 or FP64 with one element a row: '${given.output}' is ${found}` };
    }
  }
  return null;
}

function checkedBy<Schema extends typeof manifestSchema | typeof bundleSpecSchema>(
  schema: Schema,
  value: unknown,
  source: string,
): z.infer<Schema> {
  const result = schema.safeParse(value);
  if (!result.success) {
    const issue = result.error.issues[0];
    const path = issue?.path.join('.') || '(top level)';
    throw new SetpointError('invalid_bundle', `Cannot accept ${source}: ${path}: ${issue?.message ?? 'is wrong'}`, { field: path });
  }
  const checked: BundleSpec | Manifest = result.data;
  const defect = findContradiction(checked) ?? (isManifest(checked) ? findUnfitRole(checked, checked.outputs) : null);
  if (defect !== null) {
    throw new SetpointError('invalid_bundle', `Cannot accept ${source}: ${defect.path} ${defect.message}`, { field: defect.path });
  }
  return result.data as z.infer<Schema>;
}

function isManifest(checked: BundleSpec | Manifest): checked is Manifest {
  return 'format' in checked;
}
