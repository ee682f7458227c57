/** Makes one clear line of what ONNX Runtime says. Pure. */
const NOISE: readonly (readonly [RegExp, string])[] = [
  [/^Cannot load the model: /, ''],
  [/^(Fatal )?[Ee]rror: /, ''],
  [/\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : /g, ''],
  // "/onnxruntime_src/.../file.h:46 void onnxruntime::...(...) " up to the words of the message
  [/\/\S*onnxruntime\S*\.(?:h|hpp|cc|cpp):\d+ (?:[^\n]*?\)) (?=[A-Z"])/g, ''],
  [/ONNX Runtime only \*guarantees\* support .*?opset versions\. /g, ''],
  [/\s+/g, ' '],
  [/[\s.]+$/, ''],
];

const MAX_LENGTH = 300;

export function trimEngineMessage(message: string): string {
  let text = message;
  for (const [pattern, replacement] of NOISE) text = text.replace(pattern, replacement);
  text = text.trim();
  return text.length <= MAX_LENGTH ? text : `${text.slice(0, MAX_LENGTH)}...`;
}

/** Whether the engine gave up because it got no memory. */
export function isMemoryFailure(message: string): boolean {
  return /bad_alloc|failed to allocate|allocation failed|out of memory|not enough memory|bad allocation/i.test(message);
}
