// Codes: z is made of one-hot variables, and few enough values to list them all.
import { logSumExp } from "./numbers.mjs";
import { apply } from "./network.mjs";

/** Every code as { z, index }, the last variable varying fastest, as in Python. */
export function valuesOfCodes(variables, values) {
  return Array.from({ length: values ** variables }, (_, k) => {
    const index = Array.from({ length: variables }, (__, v) => Math.floor(k / values ** (variables - 1 - v)) % values);
    const z = new Float32Array(variables * values);
    index.forEach((value, v) => { z[v * values + value] = 1; });
    return { z, index };
  });
}

/** log q(z|x) of every code, by the encoder's logits of each variable; null without an encoder. */
export function codeLogits(model, { variables, values }, image) {
  if (!model.encoder) return null;
  const logits = apply(model.encoder, { data: Float32Array.from(image), shape: model.shape }).data;
  const rows = Array.from({ length: variables }, (_, v) => {
    const row = Array.from(logits.subarray(v * values, (v + 1) * values));
    const total = logSumExp(row);
    return row.map((logit) => logit - total);
  });
  return valuesOfCodes(variables, values).map(({ index }) => index.reduce((sum, value, v) => sum + rows[v][value], 0));
}
