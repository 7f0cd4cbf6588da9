// The model of a VAE: p(z), p(x|z), q(z|x), and log p(x, z) of one image at many z at a low price.
//
// All likelihoods here have the form log p(x|z) = s · Σ x l(z) + A(z) + c(x), where l are the decoder's outputs. If the
// decoder ends in a linear layer, l = Wh + b, then Σ x l = (Wᵀx)·h + x·b: for a point z whose h and A are known, an
// image costs one product of the length of h.
import { arrayOf, logSumExp } from "./numbers.mjs";
import { affine, apply, loadLayers, sigmoid, softplus, splitHead } from "./network.mjs";

const LOG_2PI = Math.log(2 * Math.PI);

/** The model of a scene, with its arrays read from the payload. */
export function loadModel(scene, buffer) {
  const model = { ...scene.model, shape: scene.shape, latent: scene.latent, chart: CHARTS[scene.chart] ?? null, label: 0 };
  model.encoder = scene.model.encoder && loadLayers(scene.model.encoder, buffer);
  model.decoder = scene.model.decoder && loadLayers(scene.model.decoder, buffer);
  model.prior = scene.model.prior && loadPrior(scene.model.prior, buffer);
  model.priors = scene.model.priors?.map((prior) => loadPrior(prior, buffer));
  model.likelihood = LIKELIHOODS[scene.model.likelihood.name]?.(scene.model.likelihood) ?? null;
  model.mean = MEANS[scene.model.likelihood.mean];
  Object.assign(model, model.decoder ? splitHead(model.decoder) : { trunk: null, head: null });
  return model;
}

/** Give a class-conditional model the label of all that follows. */
export function giveLabel(model, label) {
  model.label = label;
  if (model.priors) model.prior = model.priors[label];
}

// Maps of a circle and of a sphere, whose coordinates are in [−1, 1] and keep areas: the angle over π, and z₃.
const CHARTS = {
  circle: {
    lift: ([u]) => [Math.cos(Math.PI * u), Math.sin(Math.PI * u)],
    place: ([x, y]) => [Math.atan2(y, x) / Math.PI],
  },
  sphere: {
    lift: ([u, v]) => {
      const radius = Math.sqrt(Math.max(0, 1 - v * v));
      return [radius * Math.cos(Math.PI * u), radius * Math.sin(Math.PI * u), v];
    },
    place: ([x, y, z]) => [Math.atan2(y, x) / Math.PI, z / Math.hypot(x, y, z)],
  },
};

/** What the decoder reads of a point of the plane: its z. */
function inputOf(model, z) {
  return Float32Array.from(model.chart ? model.chart.lift(z) : z);
}

// Likelihoods: slope s, A of the outputs, c of the image, and whether pixels must be 0 or 1.
const LIKELIHOODS = {
  bernoulli: () => ({
    slope: 1,
    normalizer: (outputs) => -sumOfSoftplus(outputs),
    constant: () => 0,
    binary: true,
  }),
  "continuous-bernoulli": () => ({
    slope: 1,
    normalizer: (outputs) => outputs.reduce((sum, l) => sum - softplus(l) + logContinuous(l), 0),
    constant: () => 0,
    binary: false,
  }),
  gaussian: ({ scale }) => ({
    slope: 1 / scale ** 2,
    normalizer: (outputs) => outputs.reduce((sum, l) => sum - l * l, 0) / (2 * scale ** 2),
    constant: (x) => x.reduce((sum, u) => sum - (u * u) / (2 * scale ** 2) - Math.log(scale) - LOG_2PI / 2, 0),
    binary: false,
  }),
};

// What is shown for the outputs: E[x|z], before it is cut to [0, 1].
const MEANS = {
  sigmoid,
  identity: (l) => l,
  "continuous-bernoulli": (l) => {
    if (Math.abs(l) < 1e-2) return 0.5 + l / 12 - l ** 3 / 720;
    return 1 / -Math.expm1(-l) - 1 / l;
  },
};

/** Σ softplus(l) = Σ max(l, 0) + log Π (1 + e^−|l|), with one logarithm for many factors. */
function sumOfSoftplus(outputs) {
  let [sum, product] = [0, 1];
  for (let j = 0; j < outputs.length; j++) {
    const l = outputs[j];
    if (l > 0) sum += l;
    product *= 1 + Math.exp(l > 0 ? -l : l);
    if (product > 1e200) {
      sum += Math.log(product);
      product = 1;
    }
  }
  return sum + Math.log(product);
}

/** log C(l) of the continuous Bernoulli, C(l) = l / tanh(l/2). */
function logContinuous(l) {
  const size = Math.abs(l);
  if (size < 0.05) return Math.LN2 + l ** 2 / 12 - (7 * l ** 4) / 1440;
  return Math.log(size) - Math.log(Math.tanh(size / 2));
}

function loadPrior(prior, buffer) {
  if (prior.name === "normal") {
    return { ...prior, logDensity: (z) => z.reduce((sum, u) => sum - (u * u + LOG_2PI) / 2, 0) };
  }
  if (prior.name === "codes") {
    const logits = arrayOf(prior.logits, buffer); // normalized, of each variable in turn
    return { ...prior, logDensity: (z) => z.reduce((sum, u, i) => sum + (u > 0 ? logits[i] : 0), 0) };
  }
  if (prior.name === "uniform") return { ...prior, logDensity: () => -Math.log(prior.volume) };
  const [logits, means, factors] = [prior.logits, prior.means, prior.factors].map((part) => arrayOf(part, buffer));
  const d = prior.means.shape[1];
  const total = logSumExp(logits);
  const components = Array.from(logits, (logit, k) => ({
    weight: logit - total,
    q: gaussian(
      means.subarray(k * d, (k + 1) * d),
      Array.from({ length: d }, (_, i) => factors.subarray((k * d + i) * d, (k * d + i + 1) * d)),
    ),
  }));
  return { ...prior, components, logDensity: (z) => logSumExp(components.map(({ weight, q }) => weight + q.logDensity(z))) };
}

/** A Gaussian from its mean and the rows of a lower triangular factor L, Σ = L Lᵀ. */
export function gaussian(mean, factor) {
  const d = mean.length;
  const logDeterminant = factor.reduce((sum, row, i) => sum + Math.log(row[i]), 0);
  return {
    mean: Array.from(mean),
    factor: factor.map((row) => Array.from(row)),
    entropy: logDeterminant + (d / 2) * (1 + LOG_2PI),
    logDensity: (z) => {
      const noise = new Array(d);
      let squares = 0;
      for (let i = 0; i < d; i++) {
        let rest = z[i] - mean[i];
        for (let j = 0; j < i; j++) rest -= factor[i][j] * noise[j];
        noise[i] = rest / factor[i][i];
        squares += noise[i] ** 2;
      }
      return -squares / 2 - logDeterminant - (d / 2) * LOG_2PI;
    },
    at: (noise) => {
      const z = Array.from(mean);
      for (let i = 0; i < d; i++) for (let j = 0; j <= i; j++) z[i] += factor[i][j] * noise[j];
      return z;
    },
  };
}

/** The encoder's q(z|x); of a direction on a sphere the place on the map alone. */
export function encode(model, image) {
  const numbers = apply(model.encoder, { data: Float32Array.from(image), shape: model.shape }, model.label).data;
  const d = model.latent;
  if (model.posterior.name === "direction") return { mean: model.chart.place(numbers) };
  const mean = numbers.slice(0, d);
  if (model.posterior.name === "fixed") return gaussian(mean, diagonal(new Array(d).fill(model.posterior.scale)));
  const factor = diagonal(Array.from(numbers.slice(d, 2 * d), Math.exp));
  if (model.posterior.name === "full") {
    let k = 2 * d;
    for (let i = 0; i < d; i++) for (let j = 0; j < i; j++) factor[i][j] = numbers[k++];
  }
  return gaussian(mean, factor);
}

export function diagonal(scales) {
  return scales.map((scale, i) => scales.map((_, j) => (i === j ? scale : 0)));
}

/** The picture E[x|z], cut to [0, 1]. */
export function decode(model, z) {
  return apply(model.decoder, inputOf(model, z), model.label).data.map((l) => Math.min(1, Math.max(0, model.mean(l))));
}

/** What does not depend on the image: h, the trunk's output, and A(z) + log p(z). */
export function nodeAt(model, z) {
  const h = apply(model.trunk, inputOf(model, z), model.label).data;
  const outputs = model.head ? affine(model.head.weight, model.head.bias, h) : h;
  return { h, rest: model.likelihood.normalizer(outputs) + model.prior.logDensity(z) };
}

/** What depends on the image alone: v and b with log p(x, z) = v·h + b + rest. */
export function imageTerms(model, image) {
  const { slope, constant } = model.likelihood;
  const b = constant(image);
  if (!model.head) return { v: Float64Array.from(image, (u) => slope * u), b };
  const { weight, bias } = model.head;
  const outputs = bias.length;
  const active = [];
  for (let j = 0; j < outputs; j++) if (image[j] !== 0) active.push(j);
  const v = new Float64Array(weight.length / outputs);
  for (let i = 0; i < v.length; i++) {
    let sum = 0;
    for (const j of active) sum += weight[i * outputs + j] * image[j];
    v[i] = slope * sum;
  }
  return { v, b: b + slope * active.reduce((sum, j) => sum + bias[j] * image[j], 0) };
}

/** log p(x, z) in nats. */
export function logJoint(terms, node) {
  const { v, b } = terms;
  const { h, rest } = node;
  let sum = b + rest;
  for (let i = 0; i < v.length; i++) sum += v[i] * h[i];
  return sum;
}
