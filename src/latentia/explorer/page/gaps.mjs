// Why the bound is loose: the encoder's bound, the best Gaussian's bound, and bounds of K draws.
//
//   inference gap = log p(x) − ELBO(q) = approximation gap + amortization gap          (Cremer et al. 2018)
import { gaussian, imageTerms, logJoint, nodeAt } from "./model.mjs";
import { interpolated } from "./posterior.mjs";
import { logSumExp, normalSource } from "./numbers.mjs";

/** Nodes and weights of the Gauss–Hermite rule of n points for N(0, 1), by Newton's method on the polynomial. */
export function gaussHermite(n) {
  const nodes = [];
  const polynomial = (x) => {
    let [previous, current] = [0, Math.PI ** -0.25];
    for (let k = 0; k < n; k++) {
      [previous, current] = [current, x * Math.sqrt(2 / (k + 1)) * current - Math.sqrt(k / (k + 1)) * previous];
    }
    return { value: current, derivative: Math.sqrt(2 * n) * previous };
  };
  for (let i = 0; i < Math.floor((n + 1) / 2); i++) {
    let x = initialRoot(n, i, nodes);
    for (let step = 0; step < 100; step++) {
      const { value, derivative } = polynomial(x);
      x -= value / derivative;
      if (Math.abs(value / derivative) < 1e-15) break;
    }
    nodes.push(x);
  }
  const all = [];
  for (const x of nodes) {
    const weight = 2 / polynomial(x).derivative ** 2 / Math.sqrt(Math.PI);
    all.push({ node: Math.SQRT2 * x, weight });
    if (Math.abs(x) > 1e-10) all.push({ node: -Math.SQRT2 * x, weight });
  }
  return all;
}

// The usual starting values for the roots of Hermite polynomials, from the largest down.
function initialRoot(n, i, found) {
  if (i === 0) return Math.sqrt(2 * n + 1) - 1.85575 * (2 * n + 1) ** (-1 / 6);
  if (i === 1) return found[0] - (1.14 * n ** 0.426) / found[0];
  if (i === 2) return 1.86 * found[1] - 0.86 * found[0];
  if (i === 3) return 1.91 * found[2] - 0.91 * found[1];
  return 2 * found[i - 1] - found[i - 2];
}

function product(rule, d) {
  if (d === 1) return rule.map(({ node, weight }) => ({ noise: [node], weight }));
  return rule.flatMap((a) => rule.map((b) => ({ noise: [a.node, b.node], weight: a.weight * b.weight })));
}

/** ELBO of a Gaussian q by a rule of n points an axis, with the function that gives log p(x, z). */
export function gaussianBound(q, joint, n = 12) {
  let expected = 0;
  for (const { noise, weight } of product(gaussHermite(n), q.mean.length)) expected += weight * joint(q.at(noise));
  return expected + q.entropy;
}

/** The encoder's bound with its numerical error: two rules of the decoder itself. */
export function encoderBound(lattice, solution, q) {
  const joint = (z) => logJoint(solution.terms, nodeAt(lattice.model, z));
  const value = gaussianBound(q, joint, 12);
  return { value, error: Math.abs(value - gaussianBound(q, joint, 9)) };
}

/** The best Gaussian of the encoder's family found for this image, and its bound.
 *
 * Natural gradients by Stein's identities on the interpolated log joint density, from several starts; the bound of the
 * result is evaluated with the decoder. The search is not exhaustive: the bound is at most the best.
 */
export function bestGaussian(lattice, solution, q, family) {
  const joint = (z) => interpolated(lattice, solution, z);
  const starts = [q, ...startsOf(lattice, solution)];
  let best = null;
  for (const start of starts) {
    const found = climb(start, joint, family);
    if (!best || found.value > best.value) best = found;
  }
  const exactly = encoderBound(lattice, solution, best.q);
  const own = encoderBound(lattice, solution, q);
  return exactly.value >= own.value ? { q: best.q, ...exactly } : { q, ...own };
}

function startsOf(lattice, solution) {
  const { mean, covariance } = solution;
  const starts = [fromMoments(mean, covariance)];
  let peak = solution.leaves[0];
  for (const leaf of solution.leaves) if (leaf.f > peak.f) peak = leaf;
  const z = lattice.center(peak.level, peak.cell);
  const scale = Math.max(solution.smallest, 1e-4);
  starts.push(gaussian(z, z.map((_, i) => z.map((__, j) => (i === j ? scale : 0)))));
  return starts;
}

/** A Gaussian with these moments (d of 1 or 2). */
export function fromMoments(mean, covariance) {
  const d = mean.length;
  const first = Math.sqrt(Math.max(covariance[0][0], 1e-12));
  if (d === 1) return gaussian(mean, [[first]]);
  const below = covariance[0][1] / first;
  return gaussian(mean, [[first, 0], [below, Math.sqrt(Math.max(covariance[1][1] - below ** 2, 1e-12))]]);
}

function climb(start, joint, family) {
  const d = start.mean.length;
  const rule = product(gaussHermite(7), d);
  let q = restricted(start, family);
  let value = boundOn(rule, q, joint);
  let step = 0.5;
  for (let round = 0; round < 60 && step > 1e-3; round++) {
    const next = moved(q, rule, joint, step, family);
    const reached = next ? boundOn(rule, next, joint) : -Infinity;
    if (reached > value) {
      const gained = reached - value;
      [q, value] = [next, reached];
      step = Math.min(1, 1.5 * step);
      if (gained < 1e-6) break;
    } else step /= 2;
  }
  return { q, value };
}

function boundOn(rule, q, joint) {
  return rule.reduce((sum, { noise, weight }) => sum + weight * joint(q.at(noise)), q.entropy);
}

// Σ⁻¹ ← (1 − ρ)Σ⁻¹ − ρ E∇∇f and m ← m + ρ Σ E∇f (Opper and Archambeau 2009; Khan and Lin 2017).
function moved(q, rule, joint, step, family) {
  const d = q.mean.length;
  const gradient = new Array(d).fill(0);
  const curvature = Array.from({ length: d }, () => new Array(d).fill(0)); // in units of the noise
  const values = rule.map(({ noise }) => joint(q.at(noise)));
  const mean = rule.reduce((sum, { weight }, k) => sum + weight * values[k], 0);
  rule.forEach(({ noise, weight }, k) => {
    const f = weight * (values[k] - mean);
    for (let i = 0; i < d; i++) {
      gradient[i] += f * noise[i];
      for (let j = 0; j < d; j++) curvature[i][j] += f * (noise[i] * noise[j] - (i === j ? 1 : 0));
    }
  });
  // with z = m + L e: E∇f = L⁻ᵀ E[e f], E∇∇f = L⁻ᵀ E[(e eᵀ − I) f] L⁻¹
  const inner = curvature.map((row, i) => row.map((value, j) => (i === j ? 1 - step : 0) - step * value));
  if (family === "fixed") {
    const direction = q.factor.map((row, i) => row.reduce((sum, _, j) => sum + q.factor[i][j] * gradient[j], 0));
    return gaussian(q.mean.map((u, i) => u + step * direction[i]), q.factor);
  }
  if (family === "diagonal") for (let i = 0; i < d; i++) for (let j = 0; j < d; j++) if (i !== j) inner[i][j] = 0;
  const inverse = invert(inner);
  if (!inverse) return null;
  const L = q.factor;
  const covariance = Array.from({ length: d }, (_, i) =>
    Array.from({ length: d }, (__, j) => {
      let sum = 0;
      for (let a = 0; a < d; a++) for (let b = 0; b < d; b++) sum += L[i][a] * inverse[a][b] * L[j][b];
      return sum;
    }),
  );
  const pull = inverse.map((row) => row.reduce((sum, value, j) => sum + value * gradient[j], 0));
  return fromMoments(
    q.mean.map((u, i) => u + step * L[i].reduce((sum, value, j) => sum + value * pull[j], 0)),
    covariance,
  );
}

/** The inverse of a positive definite matrix of side 1 or 2; null for others. */
function invert(matrix) {
  if (matrix.length === 1) return matrix[0][0] > 0 ? [[1 / matrix[0][0]]] : null;
  const [[a, b], [, c]] = matrix;
  const determinant = a * c - b * b;
  if (!(a > 0 && determinant > 0)) return null;
  return [[c / determinant, -b / determinant], [-b / determinant, a / determinant]];
}

function restricted(q, family) {
  if (family !== "diagonal") return q;
  return gaussian(q.mean, q.factor.map((row, i) => row.map((_, j) => (i === j ? Math.hypot(...row) : 0))));
}

/** Log importance weights log p(x, z) − log q(z|x) of draws of q, a number at a time. */
export function* logWeights(model, image, q, seed) {
  const terms = imageTerms(model, image);
  const normal = normalSource(seed);
  for (;;) {
    const z = q.at(q.mean.map(normal));
    yield logJoint(terms, nodeAt(model, z)) - q.logDensity(z);
  }
}

/** The importance-weighted bound of K draws: disjoint groups of the log weights, each one value of it. */
export function importanceBounds(weights, K) {
  const groups = [];
  for (let start = 0; start + K <= weights.length; start += K) {
    groups.push(logSumExp(weights.slice(start, start + K)) - Math.log(K));
  }
  return groups;
}
