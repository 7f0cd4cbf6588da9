// Divergences between distributions on a grid or on the line, and the best discriminator D*.
import { sigmoid } from "./network.mjs";

const COUNTED = 200_000; // points of a histogram that stands for a density

/** D* = p/(p + q) from two log densities; ½ where both vanish.
 *
 * If q is a histogram with cells of the area `counted`, also where too few points are expected to tell p from q.
 */
export function bestDiscriminator(logP, logQ, counted = 0) {
  const least = counted ? -Math.log(COUNTED * counted) + Math.log(3) : -50;
  return Float32Array.from(logP, (value, k) => (Math.max(value, logQ[k]) < least ? 0.5 : sigmoid(value - logQ[k])));
}

/** JSD in nats of two densities given by their logarithms on cells of one area. */
export function jensenShannon(logP, logQ, area) {
  let sum = 0;
  for (let k = 0; k < logP.length; k++) {
    const [p, q] = [Math.exp(logP[k]), Math.exp(logQ[k])];
    const m = (p + q) / 2;
    if (p > 0) sum += (p * Math.log(p / m) * area) / 2;
    if (q > 0) sum += (q * Math.log(q / m) * area) / 2;
  }
  return sum;
}

/** KL, JSD and W₁ between U[0, 1] and U[a, a + 1], in closed form. */
export function uniformDivergences(a) {
  const shift = Math.abs(a);
  return { kl: shift === 0 ? 0 : Infinity, jsd: Math.min(shift, 1) * Math.LN2, w1: shift };
}

/** log N(x; mean, sigma²). */
export const logNormal = (x, mean, sigma) => -(((x - mean) / sigma) ** 2) / 2 - Math.log(sigma) - Math.log(2 * Math.PI) / 2;

/** JSD of two Gaussians on the line by the trapezoid rule, with the change on halving the spacing as its error. */
export function normalJensenShannon(first, second) {
  const [low, high] = [Math.min(first.mean - 9 * first.sigma, second.mean - 9 * second.sigma), Math.max(first.mean + 9 * first.sigma, second.mean + 9 * second.sigma)];
  const rule = (n) => {
    const step = (high - low) / n;
    const points = Array.from({ length: n + 1 }, (_, i) => low + i * step);
    return jensenShannon(points.map((x) => logNormal(x, first.mean, first.sigma)), points.map((x) => logNormal(x, second.mean, second.sigma)), step);
  };
  const value = rule(1000);
  return { value, error: Math.abs(value - rule(500)) };
}

/** KL(p, q) of two Gaussians on the line. */
export function normalKL(p, q) {
  return Math.log(q.sigma / p.sigma) + (p.sigma ** 2 + (p.mean - q.mean) ** 2) / (2 * q.sigma ** 2) - 0.5;
}

/** The slope of a field on a grid at a point, by differences of bilinear values. */
export function slopeAt(field, [columns, rows], box, point) {
  const steps = [(box[0][1] - box[0][0]) / columns, (box[1][1] - box[1][0]) / rows];
  const at = (x, y) => {
    const u = Math.min(columns - 1.001, Math.max(0, (x - box[0][0]) / steps[0] - 0.5));
    const v = Math.min(rows - 1.001, Math.max(0, (y - box[1][0]) / steps[1] - 0.5));
    const [i, j] = [Math.floor(u), Math.floor(v)];
    const mix = (row) => field[row * columns + i] * (1 - (u - i)) + field[row * columns + i + 1] * (u - i);
    return mix(j) * (1 - (v - j)) + mix(j + 1) * (v - j);
  };
  const [x, y] = point;
  return [
    (at(x + steps[0] / 2, y) - at(x - steps[0] / 2, y)) / steps[0],
    (at(x, y + steps[1] / 2) - at(x, y - steps[1] / 2)) / steps[1],
  ];
}

/** The point at share t of the great circle from a to b, whose length changes evenly. */
export function onGreatCircle(a, b, t) {
  const size = (v) => Math.hypot(...v);
  const cosine = a.reduce((sum, u, i) => sum + u * b[i], 0) / (size(a) * size(b));
  const angle = Math.acos(Math.max(-1, Math.min(1, cosine)));
  if (angle < 1e-6) return Array.from(a, (u, i) => u + t * (b[i] - u));
  const [from, to] = [Math.sin((1 - t) * angle) / Math.sin(angle), Math.sin(t * angle) / Math.sin(angle)];
  return Array.from(a, (u, i) => from * u + to * b[i]);
}
