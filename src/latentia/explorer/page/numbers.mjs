// Arrays of the payload, random numbers, and how numbers are written.

/** Decode the payload's text: base64 of a deflate stream with zlib's header. */
export async function inflate(text) {
  const binary = atob(text);
  const packed = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) packed[i] = binary.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return await new Response(stream).arrayBuffer();
}

/** The array that a reference of the page's JSON names, as a Float32Array (bytes and bits as a Uint8Array). */
export function arrayOf(reference, buffer) {
  const { encoding, offset, bytes, shape } = reference;
  const count = shape.reduce((product, side) => product * side, 1);
  if (encoding === "float32") return new Float32Array(buffer, offset, count);
  if (encoding === "uint8") return new Uint8Array(buffer, offset, count);
  if (encoding === "float16") return Float32Array.from(new Uint16Array(buffer, offset, count), halfToNumber);
  if (encoding === "uint16") {
    return Float32Array.from(new Uint16Array(buffer, offset, count), (k) => reference.low + k * reference.step);
  }
  if (encoding === "int8") {
    const scale = arrayOf(reference.scale, buffer);
    const width = count / shape[0];
    return Float32Array.from(new Int8Array(buffer, offset, count), (k, i) => k * scale[Math.floor(i / width)]);
  }
  const packed = new Uint8Array(buffer, offset, bytes);
  return Uint8Array.from({ length: count }, (_, i) => (packed[i >> 3] >> (i & 7)) & 1);
}

/** The number that 16 bits of IEEE half precision stand for. */
export function halfToNumber(half) {
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  const sign = half & 0x8000 ? -1 : 1;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** A source of uniform numbers in [0, 1), from a seed (mulberry32). */
export function uniformSource(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** A source of standard normal numbers, from a seed (Box and Muller). */
export function normalSource(seed) {
  const uniform = uniformSource(seed);
  let spare = null;
  return () => {
    if (spare !== null) {
      const value = spare;
      spare = null;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
    const angle = 2 * Math.PI * uniform();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}

/** log Σ exp of an array. */
export function logSumExp(values) {
  let largest = -Infinity;
  for (const value of values) if (value > largest) largest = value;
  if (!Number.isFinite(largest)) return largest;
  let sum = 0;
  for (const value of values) sum += Math.exp(value - largest);
  return largest + Math.log(sum);
}

/** Mean and standard error of an array. */
export function meanAndError(values) {
  const n = values.length;
  let mean = 0;
  for (const value of values) mean += value / n;
  let squares = 0;
  for (const value of values) squares += (value - mean) ** 2;
  return { mean, error: n > 1 ? Math.sqrt(squares / (n - 1) / n) : Infinity };
}

/** A number with a true minus sign, to so many places; infinities as ∞. */
export function written(value, places = 2) {
  if (value === Infinity) return "+∞";
  if (value === -Infinity) return "−∞";
  if (!Number.isFinite(value)) return "–";
  const text = value.toFixed(places);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

// A whole number as a superscript: R¹⁰.
export function superscript(number) {
  return [...String(number)].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("");
}
