// Networks: layers as Python wrote them, applied to one example at a time.
//
// A value that flows through a network is { data: Float32Array, shape: [n] or [channels, height, width] }.
import { arrayOf } from "./numbers.mjs";

/** Replace the references of a list of layers by arrays, once. */
export function loadLayers(layers, buffer) {
  return layers.map((layer) => {
    const loaded = { ...layer };
    for (const [key, value] of Object.entries(layer)) {
      if (value && typeof value === "object" && "encoding" in value) {
        loaded[key] = arrayOf(value, buffer);
        loaded[`${key}Shape`] = value.shape;
      } else if (key === "layers" || key === "head") loaded[key] = loadLayers(value, buffer);
    }
    return loaded;
  });
}

/** Apply layers to a vector or image; `label` is the class, for networks that take one. */
export function apply(layers, value, label = 0) {
  let current = { data: value.data ?? Float32Array.from(value), shape: value.shape ?? [value.length] };
  for (const layer of layers) current = OPERATIONS[layer.op](layer, current, label);
  return current;
}

/** Split layers into a trunk and a last linear layer, which makes likelihoods of many points cheap; or head: null. */
export function splitHead(layers) {
  let last = layers.length - 1;
  while (last >= 0 && layers[last].op === "reshape") last--;
  if (last < 0 || layers[last].op !== "linear") return { trunk: layers, head: null };
  return { trunk: layers.slice(0, last), head: layers[last] };
}

/** bias + weightᵀ x. Rows of the weight are inputs; zeros in x, which rectifiers leave, are skipped. */
export function affine(weight, bias, x) {
  const outputs = bias.length;
  const result = Float32Array.from(bias);
  const active = [];
  for (let i = 0; i < x.length; i++) if (x[i] !== 0) active.push(i);
  let k = 0;
  for (; k + 3 < active.length; k += 4) {
    const [a, b, c, d] = [active[k], active[k + 1], active[k + 2], active[k + 3]];
    const [xa, xb, xc, xd] = [x[a], x[b], x[c], x[d]];
    const [wa, wb, wc, wd] = [a * outputs, b * outputs, c * outputs, d * outputs];
    for (let j = 0; j < outputs; j++) {
      result[j] += xa * weight[wa + j] + xb * weight[wb + j] + xc * weight[wc + j] + xd * weight[wd + j];
    }
  }
  for (; k < active.length; k++) {
    const xa = x[active[k]];
    const wa = active[k] * outputs;
    for (let j = 0; j < outputs; j++) result[j] += xa * weight[wa + j];
  }
  return result;
}

const OPERATIONS = {
  linear: (layer, { data }) => vector(affine(layer.weight, layer.bias, data)),
  reshape: (layer, { data }) => ({ data, shape: layer.shape ?? [data.length] }),
  leaky: (layer, x) => mapped(x, (u) => (u < 0 ? layer.slope * u : u)),
  tanh: (_, x) => mapped(x, Math.tanh),
  sigmoid: (_, x) => mapped(x, sigmoid),
  softplus: (_, x) => mapped(x, softplus),
  silu: (_, x) => mapped(x, (u) => u * sigmoid(u)),
  gelu: (_, x) => mapped(x, (u) => 0.5 * u * (1 + erf(u / Math.SQRT2))),
  center: (_, x) => mapped(x, (u) => 2 * u - 1),
  residual: (layer, x, label) => {
    const branch = apply(layer.layers, x, label).data;
    return { data: x.data.map((value, i) => value + branch[i]), shape: x.shape };
  },
  layernorm: (layer, { data }) => {
    const { mean, scale } = standardization(data, 0, data.length, layer.epsilon);
    return vector(data.map((value, i) => (value - mean) * scale * layer.weight[i] + layer.bias[i]));
  },
  fourier: (layer, { data }) => {
    const count = layer.directionsShape[1];
    const phase = affine(layer.directions, new Float32Array(count), data);
    return vector(Float32Array.of(...data, ...phase.map(Math.sin), ...phase.map(Math.cos)));
  },
  append: (layer, { data }, label) => {
    const width = layer.rowsShape[1];
    return vector(Float32Array.of(...data, ...layer.rows.subarray(label * width, (label + 1) * width)));
  },
  project: (layer, x, label) => {
    const channels = x.shape[0];
    const area = x.data.length / channels;
    const width = layer.rowsShape[1];
    const output = apply(layer.head, x, label).data.slice();
    for (let o = 0; o < output.length; o++) {
      for (let i = 0; i < x.data.length; i++) {
        output[o] += (layer.rows[label * width + o * channels + Math.floor(i / area)] * x.data[i]) / area;
      }
    }
    return vector(output);
  },
  affine: (layer, { data, shape }) => {
    const area = data.length / shape[0];
    return { data: data.map((u, i) => u * layer.scale[(i / area) | 0] + layer.shift[(i / area) | 0]), shape };
  },
  groupnorm: (layer, { data, shape }) => {
    const area = data.length / shape[0];
    const size = data.length / layer.groups;
    const result = new Float32Array(data.length);
    for (let group = 0; group < layer.groups; group++) {
      const { mean, scale } = standardization(data, group * size, (group + 1) * size, layer.epsilon);
      for (let i = group * size; i < (group + 1) * size; i++) {
        const channel = (i / area) | 0;
        result[i] = (data[i] - mean) * scale * layer.weight[channel] + layer.bias[channel];
      }
    }
    return { data: result, shape };
  },
  conv: convolution,
  transposed: transposedConvolution,
  average: (layer, { data, shape }) => {
    const [channels, height, width] = shape;
    const [down, across] = layer.window;
    const round = layer.ceil ? Math.ceil : Math.floor;
    const [rows, columns] = [round(height / down), round(width / across)];
    const result = new Float32Array(channels * rows * columns);
    for (let c = 0; c < channels; c++) {
      for (let i = 0; i < rows; i++) {
        for (let j = 0; j < columns; j++) {
          let [sum, count] = [0, 0];
          for (let y = i * down; y < Math.min((i + 1) * down, height); y++) {
            for (let x = j * across; x < Math.min((j + 1) * across, width); x++) {
              sum += data[(c * height + y) * width + x];
              count++;
            }
          }
          result[(c * rows + i) * columns + j] = sum / count;
        }
      }
    }
    return { data: result, shape: [channels, rows, columns] };
  },
  upsample: (layer, { data, shape }) => {
    const [channels, height, width] = shape;
    const [rows, columns] = layer.size;
    const down = between(height, rows);
    const across = between(width, columns);
    const result = new Float32Array(channels * rows * columns);
    for (let c = 0; c < channels; c++) {
      for (let i = 0; i < rows; i++) {
        for (let j = 0; j < columns; j++) {
          const [y, x] = [down[i], across[j]];
          const at = (row, column) => data[(c * height + row) * width + column];
          const upper = at(y.low, x.low) * (1 - x.share) + at(y.low, x.high) * x.share;
          const lower = at(y.high, x.low) * (1 - x.share) + at(y.high, x.high) * x.share;
          result[(c * rows + i) * columns + j] = upper * (1 - y.share) + lower * y.share;
        }
      }
    }
    return { data: result, shape: [channels, rows, columns] };
  },
};

function convolution(layer, { data, shape }) {
  const [, height, width] = shape;
  const [outputs, inputs, kernelRows, kernelColumns] = layer.weightShape;
  const [[sy, sx], [py, px]] = [layer.stride, layer.padding];
  const rows = Math.floor((height + 2 * py - kernelRows) / sy) + 1;
  const columns = Math.floor((width + 2 * px - kernelColumns) / sx) + 1;
  const result = new Float32Array(outputs * rows * columns);
  const perGroup = outputs / layer.groups;
  for (let o = 0; o < outputs; o++) {
    result.fill(layer.bias[o], o * rows * columns, (o + 1) * rows * columns);
    const first = Math.floor(o / perGroup) * inputs;
    for (let c = 0; c < inputs; c++) {
      for (let ky = 0; ky < kernelRows; ky++) {
        for (let kx = 0; kx < kernelColumns; kx++) {
          const w = layer.weight[((o * inputs + c) * kernelRows + ky) * kernelColumns + kx];
          if (w === 0) continue;
          const [low, high] = inside(kx - px, sx, width, columns);
          for (let i = 0; i < rows; i++) {
            const y = i * sy + ky - py;
            if (y < 0 || y >= height) continue;
            const source = ((first + c) * height + y) * width + kx - px;
            const target = (o * rows + i) * columns;
            for (let j = low; j < high; j++) result[target + j] += w * data[source + j * sx];
          }
        }
      }
    }
  }
  return { data: result, shape: [outputs, rows, columns] };
}

function transposedConvolution(layer, { data, shape }) {
  const [, height, width] = shape;
  const [inputs, perGroup, kernelRows, kernelColumns] = layer.weightShape;
  const outputs = perGroup * layer.groups;
  const [[sy, sx], [py, px], [ey, ex]] = [layer.stride, layer.padding, layer.extra];
  const rows = (height - 1) * sy - 2 * py + kernelRows + ey;
  const columns = (width - 1) * sx - 2 * px + kernelColumns + ex;
  const result = new Float32Array(outputs * rows * columns);
  for (let o = 0; o < outputs; o++) result.fill(layer.bias[o], o * rows * columns, (o + 1) * rows * columns);
  const inputsPerGroup = inputs / layer.groups;
  for (let c = 0; c < inputs; c++) {
    const first = Math.floor(c / inputsPerGroup) * perGroup;
    for (let o = 0; o < perGroup; o++) {
      for (let ky = 0; ky < kernelRows; ky++) {
        for (let kx = 0; kx < kernelColumns; kx++) {
          const w = layer.weight[((c * perGroup + o) * kernelRows + ky) * kernelColumns + kx];
          const [low, high] = inside(kx - px, sx, columns, width);
          for (let i = 0; i < height; i++) {
            const y = i * sy + ky - py;
            if (y < 0 || y >= rows) continue;
            const source = (c * height + i) * width;
            const target = ((first + o) * rows + y) * columns + kx - px;
            for (let j = low; j < high; j++) result[target + j * sx] += w * data[source + j];
          }
        }
      }
    }
  }
  return { data: result, shape: [outputs, rows, columns] };
}

/** The j from low to high with 0 ≤ shift + j·stride < size and j < count. */
function inside(shift, stride, size, count) {
  return [Math.max(0, Math.ceil(-shift / stride)), Math.min(count, Math.ceil((size - shift) / stride))];
}

/** For each of `to` places, its neighbors among `from` ones and the share of the second (bilinear, torch's centers). */
function between(from, to) {
  return Array.from({ length: to }, (_, i) => {
    const place = Math.max(0, ((i + 0.5) * from) / to - 0.5);
    const low = Math.min(Math.floor(place), from - 1);
    return { low, high: Math.min(low + 1, from - 1), share: place - low };
  });
}

function standardization(data, from, to, epsilon) {
  let mean = 0;
  for (let i = from; i < to; i++) mean += data[i] / (to - from);
  let variance = 0;
  for (let i = from; i < to; i++) variance += (data[i] - mean) ** 2 / (to - from);
  return { mean, scale: 1 / Math.sqrt(variance + epsilon) };
}

const vector = (data) => ({ data, shape: [data.length] });
const mapped = ({ data, shape }, f) => ({ data: data.map(f), shape });

export const sigmoid = (u) => 1 / (1 + Math.exp(-u));
export const softplus = (u) => (u > 0 ? u + Math.log1p(Math.exp(-u)) : Math.log1p(Math.exp(u)));

/** The error function, by its series and its continued fraction; error below 1e-12. */
export function erf(x) {
  const size = Math.abs(x);
  if (size > 6) return Math.sign(x);
  if (size < 2.5) {
    let [term, sum] = [size, size];
    for (let n = 1; n < 60 && Math.abs(term) > 1e-17; n++) {
      term *= (-size * size) / n;
      sum += term / (2 * n + 1);
    }
    return (Math.sign(x) * 2 * sum) / Math.sqrt(Math.PI);
  }
  let fraction = 0;
  for (let n = 60; n > 0; n--) fraction = n / 2 / (size + fraction);
  return Math.sign(x) * (1 - Math.exp(-size * size) / Math.sqrt(Math.PI) / (size + fraction));
}
