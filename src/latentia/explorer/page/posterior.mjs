// The exact posterior p(z|x) and log p(x) for z on a line or a plane, by cells that are halved where the mass is.
//
// A cell of level k has the side root/2^k; the integrand is taken at its center (midpoint rule). For a smooth, decaying
// integrand this rule converges faster than any power of the side once the side is about the posterior's standard
// deviation. Cells outside of the mass stay coarse: they carry less than e^−8 of its peak. How high the
// density may be inside of a cell follows from a parabola through its value and its neighbors', with some doubt added. Points z that were computed are
// kept, since they serve every image.
import { nodeAt, imageTerms, logJoint } from "./model.mjs";
import { logSumExp } from "./numbers.mjs";

const LEVELS = 8;
const KEPT = 40_000; // points of finer levels in memory
const DEPTH = 8; // nats below the peak: cells that may reach higher are halved
const DOUBT = 0.25; // of the second differences, added to what a cell may reach
const WIDEST = 3_000; // cells that are halved at a level, at most
// When to stop: the change of log p(x) in nats between two levels, and the same where halving once more would take more
// than so many points. The first is for an answer at once, the second for the one that stays.
export const QUICK = { enough: 0.02, tolerable: 0.08, afforded: 400 };
export const FINE = { enough: 0.002, tolerable: 0.01, afforded: 5_000 };
const RESOLVED = 1.1; // side of a cell in standard deviations, at most
export const ROOTS = 64; // cells of level 0 along a side

/** The points of a model, computed once. */
export class Lattice {
  constructor(model, box) {
    this.model = model;
    this.d = model.latent;
    this.box = box; // [low, high], the same along each axis
    this.root = (box[1] - box[0]) / ROOTS;
    this.roots = new Array(this.d === 1 ? ROOTS : ROOTS * ROOTS).fill(null);
    this.finer = new Map();
    this.done = 0; // points of level 0
  }

  side(level) {
    return this.root / 2 ** level;
  }

  center(level, cell) {
    return cell.map((i) => this.box[0] + (i + 0.5) * this.side(level));
  }

  node(level, cell) {
    if (level === 0) {
      const index = this.d === 1 ? cell[0] : cell[1] * ROOTS + cell[0];
      if (this.roots[index] === null) {
        this.roots[index] = nodeAt(this.model, this.center(0, cell));
        this.done++;
      }
      return this.roots[index];
    }
    const key = keyOf(level, cell);
    let found = this.finer.get(key);
    if (!found) {
      if (this.finer.size >= KEPT) this.finer.delete(this.finer.keys().next().value);
      found = nodeAt(this.model, this.center(level, cell));
      this.finer.set(key, found);
    }
    return found;
  }

  rootCells() {
    return Array.from(this.roots, (_, k) => (this.d === 1 ? [k] : [k % ROOTS, Math.floor(k / ROOTS)]));
  }
}

function keyOf(level, cell) {
  return (level * 2 ** 20 + cell[0]) * 2 ** 20 + (cell[1] ?? 0);
}

function children(cell) {
  const [i, j] = cell;
  if (j === undefined) return [[2 * i], [2 * i + 1]];
  return [[2 * i, 2 * j], [2 * i + 1, 2 * j], [2 * i, 2 * j + 1], [2 * i + 1, 2 * j + 1]];
}

/** log p(x) with its numerical error, the leaves with their log joint densities, moments and entropy. */
export function solve(lattice, image, { enough, tolerable, afforded } = FINE) {
  const terms = imageTerms(lattice.model, image);
  const value = (level, cell) => logJoint(terms, lattice.node(level, cell));
  let cells = lattice.rootCells().map((cell) => ({ level: 0, cell, f: value(0, cell) }));
  const coarser = []; // leaves of the levels that are done
  const values = new Map(cells.map((leaf) => [keyOf(0, leaf.cell), leaf.f]));
  let [before, logEvidence, error] = [NaN, NaN, Infinity];
  for (let level = 0; ; level++) {
    const leaves = [...coarser, ...cells];
    before = logEvidence;
    logEvidence = logSumExp(leaves.map((leaf) => leaf.f + lattice.d * Math.log(lattice.side(leaf.level))));
    error = Math.abs(logEvidence - before);
    const found = momentsOf(lattice, leaves, logEvidence);
    const resolved = lattice.side(level) < RESOLVED * found.smallest;
    const peak = cells.reduce((most, leaf) => Math.max(most, leaf.f), -Infinity);
    for (const leaf of cells) leaf.reach = reachOf(values, level, leaf);
    const order = cells.slice().sort((a, b) => b.reach - a.reach);
    let count = order.findIndex((leaf) => leaf.reach < peak - DEPTH);
    count = Math.min(WIDEST, count < 0 ? order.length : count);
    const limit = 4 * count > afforded ? tolerable : enough;
    if ((level > 0 && error < limit && resolved) || level === LEVELS) {
      return { logEvidence, error, leaves, terms, values, level, ...found };
    }
    coarser.push(...order.slice(count));
    cells = order.slice(0, count).flatMap((leaf) =>
      children(leaf.cell).map((cell) => {
        const f = value(level + 1, cell);
        values.set(keyOf(level + 1, cell), f);
        return { level: level + 1, cell, f };
      }),
    );
  }
}

/** How high log p(x, z) may be inside of a cell. */
function reachOf(values, level, { cell, f }) {
  let reach = f;
  for (let axis = 0; axis < cell.length; axis++) {
    const neighbor = (step) => values.get(keyOf(level, cell.map((i, k) => (k === axis ? i + step : i))));
    const [below, above] = [neighbor(-1), neighbor(1)];
    if (below === undefined && above === undefined) continue;
    const bend = below === undefined || above === undefined ? 0 : above - 2 * f + below;
    const slope = below === undefined ? above - f : above === undefined ? f - below : (above - below) / 2;
    const place = bend < 0 ? Math.min(0.5, Math.max(-0.5, -slope / bend)) : 0.5 * Math.sign(slope);
    reach += slope * place + (bend * place ** 2) / 2 + DOUBT * Math.abs(bend);
  }
  return reach;
}

function momentsOf(lattice, leaves, logEvidence) {
  const d = lattice.d;
  const mean = new Array(d).fill(0);
  const second = Array.from({ length: d }, () => new Array(d).fill(0));
  let entropy = 0;
  for (const leaf of leaves) {
    const side = lattice.side(leaf.level);
    const mass = Math.exp(leaf.f - logEvidence) * side ** d;
    if (mass < 1e-14) continue;
    const z = lattice.center(leaf.level, leaf.cell);
    entropy -= mass * (leaf.f - logEvidence);
    for (let i = 0; i < d; i++) {
      mean[i] += mass * z[i];
      for (let j = 0; j < d; j++) second[i][j] += mass * z[i] * z[j];
    }
  }
  const covariance = second.map((row, i) => row.map((value, j) => value - mean[i] * mean[j]));
  return { mean, covariance, entropy, smallest: smallestScale(lattice, leaves, logEvidence) };
}

/** The smallest standard deviation around the highest leaf: of the mass within half of the density's peak and near. */
function smallestScale(lattice, leaves, logEvidence) {
  const d = lattice.d;
  let best = leaves[0];
  for (const leaf of leaves) if (leaf.f > best.f) best = leaf;
  // the local volume, mass over peak density, is (2π)^(d/2) times the product of the standard deviations
  const spread = Math.exp(logEvidence - best.f) ** (1 / d) / Math.sqrt(2 * Math.PI);
  return spread * 0.7;
}

/** log p(x, z) at any z from the leaves: third-degree interpolation, exact for quadratics, else the nearest center. */
export function interpolated(lattice, solution, z) {
  for (let level = solution.level; level >= 0; level--) {
    const side = lattice.side(level);
    const place = z.map((u) => (u - lattice.box[0]) / side - 0.5);
    const found = cubic(solution.values, level, place);
    if (found !== null) return found;
  }
  const cell = z.map((u) => Math.min(ROOTS - 1, Math.max(0, Math.floor((u - lattice.box[0]) / lattice.root))));
  return solution.values.get(keyOf(0, cell));
}

function cubic(values, level, place) {
  const low = place.map(Math.floor);
  const weights = place.map((u, axis) => catmullRom(u - low[axis]));
  let sum = 0;
  for (let i = -1; i < 3; i++) {
    if (place.length === 1) {
      const value = values.get(keyOf(level, [low[0] + i]));
      if (value === undefined) return null;
      sum += weights[0][i + 1] * value;
      continue;
    }
    for (let j = -1; j < 3; j++) {
      if (low[0] + i < 0 || low[1] + j < 0) return null;
      const value = values.get(keyOf(level, [low[0] + i, low[1] + j]));
      if (value === undefined) return null;
      sum += weights[0][i + 1] * weights[1][j + 1] * value;
    }
  }
  return sum;
}

function catmullRom(t) {
  return [
    (-t + 2 * t * t - t ** 3) / 2,
    (2 - 5 * t * t + 3 * t ** 3) / 2,
    (t + 4 * t * t - 3 * t ** 3) / 2,
    (t ** 3 - t * t) / 2,
  ];
}

/** The window that holds the mass and, if given, the encoder's ellipse: [[low, high], …], of equal sides. */
export function windowOf(lattice, solution, q) {
  const bounds = Array.from({ length: lattice.d }, () => [Infinity, -Infinity]);
  const include = (z, margin) =>
    z.forEach((u, axis) => {
      bounds[axis][0] = Math.min(bounds[axis][0], u - margin[axis]);
      bounds[axis][1] = Math.max(bounds[axis][1], u + margin[axis]);
    });
  for (const leaf of solution.leaves) {
    const side = lattice.side(leaf.level);
    const mass = Math.exp(leaf.f - solution.logEvidence) * side ** lattice.d;
    if (mass > 2e-6) include(lattice.center(leaf.level, leaf.cell), new Array(lattice.d).fill(side));
  }
  if (q) {
    const spread = q.factor.map((row) => 2.6 * Math.hypot(...row));
    include(q.mean, spread);
  }
  const half = 0.54 * Math.max(...bounds.map(([low, high]) => high - low));
  const windows = bounds.map(([low, high]) => [(low + high) / 2 - half, (low + high) / 2 + half]);
  return lattice.model.chart ? windows.map((window) => within(window, lattice.box)) : windows;
}

/** A window moved, and where it must be cut, to lie on a map. */
function within([low, high], [least, most]) {
  if (high - low >= most - least) return [least, most];
  const move = Math.max(0, least - low) - Math.max(0, high - most);
  return [low + move, high + move];
}

/** The density p(z|x) at the centers of a grid of `count` cells a side in a window; rows from low to high. */
export function heatMap(lattice, solution, window, count) {
  const sides = window.map(([low, high]) => (high - low) / count);
  const density = new Float64Array(count ** lattice.d);
  for (let k = 0; k < density.length; k++) {
    const place = lattice.d === 1 ? [k] : [k % count, Math.floor(k / count)];
    const z = place.map((i, axis) => window[axis][0] + (i + 0.5) * sides[axis]);
    density[k] = Math.exp(interpolated(lattice, solution, z) - solution.logEvidence);
  }
  const cell = sides.reduce((product, side) => product * side, 1);
  return { density, mass: density.reduce((sum, value) => sum + value, 0) * cell };
}
