// The computations of one VAE, off the page's main thread: answers to "solve this image", newest question first.
import { decode, encode, giveLabel, loadModel } from "./model.mjs";
import { FINE, heatMap, Lattice, QUICK, solve, windowOf } from "./posterior.mjs";
import { bestGaussian, encoderBound, logWeights } from "./gaps.mjs";

export const DRAWS = 2048; // of q, for the bounds of K draws
const CHUNK = 128;
const LABELS = 3; // whose points are kept
const COUNT = 64; // cells of the heat map along a side
export const PLANE = 2; // dimensions of z, at most, for a grid

/** Computations of a scene's model. `post` gets results; `pause` returns a promise that lets messages in. */
export class Engine {
  constructor(scene, buffer, post, pause) {
    this.model = loadModel(scene, buffer);
    this.post = post;
    this.pause = pause;
    this.question = 0;
    const exact = this.model.decoder && this.model.prior && this.model.likelihood && this.model.latent <= PLANE;
    this.lattice = exact ? new Lattice(this.model, scene.box) : null;
    this.lattices = [[0, this.lattice]]; // of the labels that were asked for last
  }

  /** Answer for this label from now on. */
  give(label) {
    if (label === this.model.label) return;
    giveLabel(this.model, label);
    if (!this.lattice) return;
    const known = this.lattices.find(([of]) => of === label)?.[1] ?? new Lattice(this.model, this.lattice.box);
    this.lattices = [[label, known], ...this.lattices.filter(([of]) => of !== label)].slice(0, LABELS);
    this.lattice = known;
  }

  /** Compute the coarse points ahead, between questions. */
  async prepare() {
    if (!this.lattice) return;
    const lattice = this.lattice;
    const cells = lattice.rootCells();
    for (let k = 0; k < cells.length; k++) {
      if (this.lattice !== lattice) break; // another label is asked for
      lattice.node(0, cells[k]);
      if (k % 64 === 63) await this.pause();
    }
    this.post({ kind: "ready" });
  }

  /** Post what is known of an image, in the order in which it becomes known. */
  async ask(question, image, label = 0) {
    this.question = question;
    this.give(label);
    const still = async () => {
      await this.pause();
      return this.question === question;
    };
    const started = Date.now();
    const q = this.model.encoder && this.model.posterior ? encode(this.model, image) : null;
    this.post({ kind: "encoded", question, q: plainOf(q) });
    const gaussian = Boolean(q?.factor);
    if (!(await still()) || !this.model.decoder || !this.model.likelihood || !this.model.prior) return;
    if (this.lattice) {
      let solution = null;
      for (const effort of [QUICK, FINE]) {
        solution = solve(this.lattice, image, effort);
        const window = windowOf(this.lattice, solution, gaussian ? q : null);
        const { density, mass } = heatMap(this.lattice, solution, window, COUNT);
        const { logEvidence, error, mean, covariance, entropy, leaves, level } = solution;
        this.post({
          kind: "posterior", question, logEvidence, error, mean, covariance, entropy, window, density, mass,
          count: COUNT, cells: leaves.length, side: this.lattice.side(level), milliseconds: Date.now() - started,
        });
        if (!(await still())) return;
      }
      if (!gaussian || !(await still())) return;
      const bound = encoderBound(this.lattice, solution, q);
      this.post({ kind: "bound", question, bound });
      if (!(await still())) return;
      const best = bestGaussian(this.lattice, solution, q, this.model.posterior.name);
      this.post({ kind: "best", question, best: { q: plainOf(best.q), value: best.value, error: best.error } });
    }
    if (!gaussian) return;
    const draws = logWeights(this.model, image, q, 1);
    const weights = [];
    while (weights.length < DRAWS) {
      if (!(await still())) return;
      for (let k = 0; k < CHUNK; k++) weights.push(draws.next().value);
      this.post({ kind: "weights", question, weights: Float64Array.from(weights) });
    }
  }

  decoded(points) {
    return points.map((z) => decode(this.model, z));
  }
}

/** What a message can hold of a Gaussian: its numbers. */
function plainOf(q) {
  return q && { mean: q.mean, factor: q.factor ?? null, entropy: q.entropy ?? null };
}

/** Answer the messages of a worker's owner. */
export function serve(scope) {
  // One channel for all pauses: a port that nothing refers to may be collected before its message arrives.
  const waiting = [];
  const channel = new MessageChannel();
  channel.port1.onmessage = () => waiting.shift()();
  const pause = () => new Promise((resolve) => {
    waiting.push(resolve);
    channel.port2.postMessage(null);
  });
  let engine = null;
  scope.onmessage = async ({ data }) => {
    if (data.kind === "load") {
      engine = new Engine(data.scene, data.buffer, (message) => scope.postMessage(message), pause);
      await engine.prepare();
    } else if (data.kind === "ask") await engine.ask(data.question, data.image, data.label);
    else if (data.kind === "decode") {
      scope.postMessage({ kind: "decoded", pictures: engine.decoded(data.points) });
    }
  };
}
