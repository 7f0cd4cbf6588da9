// Drawn strokes as the data set has its digits, presets, and bits as the likelihood needs them.
import { uniformSource } from "./numbers.mjs";

/** Center gray pixels as MNIST does: the strokes fill a box of 20/28 of the side, by their center of mass.
 *
 * @param pixels of a pad, values in [0, 1], `side` a row.
 * @param size of the result: [height, width].
 */
export function centered(pixels, side, size) {
  const [height, width] = size;
  const result = new Float32Array(height * width);
  let [top, left, bottom, right] = [side, side, -1, -1];
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      if (pixels[y * side + x] > 0.05) {
        [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
        [left, right] = [Math.min(left, x), Math.max(right, x)];
      }
    }
  }
  if (bottom < 0) return result;
  const scale = ((Math.min(height, width) * 20) / 28 / Math.max(bottom - top + 1, right - left + 1));
  const at = (y, x) => (y < 0 || x < 0 || y >= side || x >= side ? 0 : pixels[y * side + x]);
  let [mass, massY, massX] = [0, 0, 0];
  for (let y = top; y <= bottom; y++) {
    for (let x = left; x <= right; x++) {
      mass += at(y, x);
      massY += at(y, x) * (y + 0.5);
      massX += at(y, x) * (x + 0.5);
    }
  }
  const [centerY, centerX] = [massY / mass, massX / mass];
  // The mean over each target pixel's area, by samples inside it.
  const samples = Math.max(2, Math.ceil(1 / scale));
  for (let i = 0; i < height; i++) {
    for (let j = 0; j < width; j++) {
      let sum = 0;
      for (let a = 0; a < samples; a++) {
        for (let b = 0; b < samples; b++) {
          const y = (i + (a + 0.5) / samples - height / 2) / scale + centerY;
          const x = (j + (b + 0.5) / samples - width / 2) / scale + centerX;
          sum += at(Math.floor(y), Math.floor(x));
        }
      }
      result[i * width + j] = Math.min(1, sum / samples ** 2);
    }
  }
  return result;
}

/** Pixels of 0 and 1 from gray ones: 1 with the probability of the gray level, by noise that a seed fixes. */
export function binarized(gray, how, seed = 1) {
  if (how === "none") return Float32Array.from(gray);
  if (how === "threshold") return Float32Array.from(gray, (u) => (u >= 128 / 255 ? 1 : 0));
  const uniform = uniformSource(seed);
  return Float32Array.from(gray, (u) => (uniform() < u ? 1 : 0));
}

/** Each channel turned by half a turn. */
export function upsideDown(image, [channels, height, width]) {
  const area = height * width;
  return Float32Array.from(image, (_, k) => image[Math.floor(k / area) * area + (area - 1 - (k % area))]);
}

/** Independent pixels: 1 with probability one half, or gray. */
export function noise(count, binary, seed) {
  const uniform = uniformSource(seed);
  return Float32Array.from({ length: count }, () => (binary ? (uniform() < 0.5 ? 1 : 0) : uniform()));
}
