// The plane of z: decoded pictures, encoded images, prior, aggregate posterior, and what is known of one image.
import { decode } from "./model.mjs";
import { written } from "./numbers.mjs";
import { axes, CLASS_COLORS, curve, ellipse, fieldPicture, fitted, line, mixed, paint, parts, themed } from "./drawing.mjs";
import { card, element, redrawn, toggle } from "./parts.mjs";

const MOSAIC = 24; // decoded pictures along a side
const FIELD = 120; // cells of the aggregate posterior along a side
const BUDGET = 10; // milliseconds of a frame that may be spent on decoding

/** A card with the plane. `moved(z)` is called with the point under the pointer or the keyboard's cursor. */
export function planeCard(scene, model, codes, moved) {
  const flat = scene.latent === 1;
  const [low, high] = scene.view;
  const state = {
    layers: { pictures: Boolean(model.decoder || scene.atlas), test: true, prior: false, aggregate: false, posterior: true },
    cursor: new Array(scene.latent).fill(0),
    known: {},
    // two directions through a point, for z of more than two dimensions
    frame: { origin: new Array(scene.latent).fill(0), first: unit(scene.latent, 0), second: unit(scene.latent, 1) },
  };
  const canvas = element("canvas", {
    class: "wide",
    tabindex: 0,
    role: "application",
    "aria-label": "Plane of z. Arrow keys move the point that is decoded, with Shift in larger steps.",
  });
  const readout = element("p", { class: "hint small", "aria-live": "polite" });
  const request = redrawn(canvas, draw);
  let mosaic = null;
  let aggregate = null;

  const names = { pictures: "decoded pictures", test: "test images", prior: "prior", aggregate: "aggregate posterior", posterior: "this image" };
  const chips = element("div", { class: "chips", role: "group", "aria-label": "Layers" });
  for (const [key, name] of Object.entries(names)) {
    const missing = (key === "pictures" && !state.layers.pictures) || (["test", "aggregate"].includes(key) && !codes);
    if (missing || (key === "prior" && !model.prior)) continue;
    if (scene.chart && ["prior", "aggregate"].includes(key)) continue; // the prior is uniform
    chips.append(toggle(name, state.layers[key], (on) => { state.layers[key] = on; request(); }));
  }
  const view = {};
  view.element = card(
    scene.chart ? (flat ? "The circle of z, by its angle" : "A map of the sphere of z") : flat ? "The line of z" : scene.latent === 2 ? "The plane of z" : "A plane through z",
    scene.chart === "sphere" ? "Longitude across, height up: equal areas are equal shares of the prior. Move over it: each z is decoded at once." : "Move over it: each point z is decoded at once.",
    canvas,
    readout,
    chips,
    codes?.labels && element("div", { class: "legend" }, ...scene.classes.map((name, k) =>
      element("span", {}, swatch(CLASS_COLORS[k % 10]), name))),
  );

  const project = (z) => {
    if (flat) return [z[0], 0];
    if (scene.latent === 2) return [z[0], z[1]];
    const { origin, first, second } = state.frame;
    return [first, second].map((direction) => direction.reduce((sum, u, i) => sum + u * (z[i] - origin[i]), 0));
  };
  const lift = ([a, b]) => {
    if (flat) return [a];
    if (scene.latent === 2) return [a, b];
    const { origin, first, second } = state.frame;
    return origin.map((u, i) => u + a * first[i] + b * second[i]);
  };

  function place(z, note) {
    state.cursor = z;
    const shown = z.slice(0, 6).map((u) => written(u, 2)).join(", ");
    readout.textContent = `z = (${shown}${z.length > 6 ? ", …" : ""})${note ?? ""}`;
    moved(z);
    view.follow?.(z);
    request();
  }
  const fromPointer = (event) => {
    const bounds = canvas.getBoundingClientRect();
    const share = (event.clientX - bounds.left - view.left) / view.span;
    const up = (view.bottom - (event.clientY - bounds.top)) / view.rise;
    const clamp = (t) => Math.min(1, Math.max(0, t));
    return lift([low + clamp(share) * (high - low), low + clamp(up) * (high - low)]);
  };
  canvas.addEventListener("pointermove", (event) => place(fromPointer(event)));
  canvas.addEventListener("pointerdown", (event) => { canvas.focus({ preventScroll: true }); place(fromPointer(event)); });
  canvas.addEventListener("keydown", (event) => {
    const step = (event.shiftKey ? 0.5 : 0.05) * ((high - low) / 9);
    const change = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!change) return;
    event.preventDefault();
    const [a, b] = project(state.cursor);
    const clamp = (u) => Math.min(high, Math.max(low, u));
    place(lift([clamp(a + step * change[0]), clamp(b + step * change[1])]));
  });

  function draw() {
    const { context, width, height } = fitted(canvas, flat ? 0.55 : 1.03);
    const names = axisNames(scene);
    const [left, top, right, bottom] = [34, flat ? 8 : 22, width - 8, height - 36];
    Object.assign(view, { left, bottom, span: right - left, rise: bottom - top });
    const range = [low, high];
    const { toX, toY } = axes(context, { left, top, right, bottom, x: range, y: flat ? [0, 1] : range, countX: 6, countY: flat ? 0 : 6, labelX: names.x, labelY: flat ? "" : names.y });
    context.save();
    context.beginPath();
    context.rect(left, top, right - left, bottom - top);
    context.clip();
    if (flat) drawLine(context, { toX, left, top, right, bottom });
    else drawPlane(context, { toX, toY, left, top, right, bottom });
    context.restore();
  }

  function drawPlane(context, { toX, toY, left, top, right, bottom }) {
    const area = [left, top, right - left, bottom - top];
    if (state.layers.pictures && mosaic) {
      context.drawImage(inked(mosaic.canvas), ...area);
    }
    if (state.layers.aggregate) {
      aggregate ??= aggregateField();
      const [shade, paper] = [themed("good"), themed("card")];
      const peak = Math.max(...aggregate);
      context.drawImage(fieldPicture(aggregate, FIELD, FIELD, (value) => {
        const share = Math.sqrt(value / peak);
        return [...mixed(paper, shade, 1), 230 * share];
      }), ...area);
    }
    if (state.layers.prior) drawPrior(context, toX, toY);
    if (state.layers.test && codes) {
      const size = codes.count > 2000 ? 2.2 : 3;
      for (let k = 0; k < codes.count; k++) {
        const [a, b] = project(codes.at(k));
        context.fillStyle = codes.labels ? CLASS_COLORS[codes.labels[k] % 10] : themed("accent");
        context.fillRect(toX(a) - size / 2, toY(b) - size / 2, size, size);
      }
    }
    if (state.layers.posterior) drawKnown(context, toX, toY);
    const [a, b] = project(state.cursor);
    context.strokeStyle = themed("ink");
    context.lineWidth = 1.5;
    context.beginPath();
    context.arc(toX(a), toY(b), 6, 0, 2 * Math.PI);
    context.moveTo(toX(a) - 10, toY(b));
    context.lineTo(toX(a) + 10, toY(b));
    context.moveTo(toX(a), toY(b) - 10);
    context.lineTo(toX(a), toY(b) + 10);
    context.stroke();
  }

  function drawPrior(context, toX, toY) {
    context.strokeStyle = themed("accent");
    context.lineWidth = 1.4;
    if (scene.latent > 2 || model.prior.name === "normal") {
      for (const radius of [1, 2, 3]) {
        const origin = project(new Array(scene.latent).fill(0));
        ellipse(context, { mean: origin, factor: [[radius, 0], [0, radius]] }, 1, toX, toY);
      }
    } else {
      for (const { q } of model.prior.components) ellipse(context, q, 1, toX, toY);
    }
  }

  function drawKnown(context, toX, toY) {
    const { posterior, q, best } = state.known;
    if (posterior && scene.latent === 2) {
      const { window: [[x0, x1], [y0, y1]], density, count } = posterior;
      const peak = Math.max(...density);
      const color = mixed(themed("warm"), themed("warm"), 0);
      const picture = fieldPicture(density, count, count, (value) => [...color, 255 * Math.min(1, Math.sqrt(value / peak))]);
      context.drawImage(picture, toX(x0), toY(y1), toX(x1) - toX(x0), toY(y0) - toY(y1));
      context.strokeStyle = themed("warm");
      context.lineWidth = 1;
      const [w, h] = [Math.max(12, toX(x1) - toX(x0)), Math.max(12, toY(y0) - toY(y1))];
      context.strokeRect(toX((x0 + x1) / 2) - w / 2, toY((y0 + y1) / 2) - h / 2, w, h);
    }
    if (q) {
      context.strokeStyle = themed("ink");
      context.lineWidth = 1.6;
      if (scene.latent === 2) ellipse(context, q, 2, toX, toY);
      else {
        const [a, b] = project(q.mean);
        context.fillStyle = themed("warm");
        context.beginPath();
        context.arc(toX(a), toY(b), 5, 0, 2 * Math.PI);
        context.fill();
        context.stroke();
      }
    }
    if (best && scene.latent === 2) {
      context.strokeStyle = themed("cool");
      ellipse(context, best.q, 2, toX, toY);
    }
  }

  function drawLine(context, { toX, left, top, right, bottom }) {
    const rise = bottom - top;
    if (state.layers.pictures && mosaic) context.drawImage(inked(mosaic.canvas), left, top, right - left, (right - left) / MOSAIC);
    const base = bottom - 2;
    if (state.layers.test && codes) {
      for (let k = 0; k < codes.count; k++) {
        context.fillStyle = codes.labels ? CLASS_COLORS[codes.labels[k] % 10] : themed("accent");
        context.fillRect(toX(codes.at(k)[0]) - 1, base - ((k * 0.618) % 1) * rise * 0.3, 2, 2);
      }
    }
    const densities = [];
    if (state.layers.prior) densities.push(["accent", (u) => Math.exp(model.prior.logDensity([u]))]);
    if (state.layers.aggregate) densities.push(["good", (u) => aggregateAt(u)]);
    const { posterior, q, best } = state.known;
    if (state.layers.posterior && q) densities.push(["ink", (u) => gaussianAt(q, u)]);
    if (state.layers.posterior && best) densities.push(["cool", (u) => gaussianAt(best.q, u)]);
    if (state.layers.posterior && posterior) {
      const [[x0, x1]] = posterior.window;
      densities.push(["warm", (u) => posterior.density[Math.floor(((u - x0) / (x1 - x0)) * posterior.count)] ?? 0]);
    }
    for (const [color, density] of densities) {
      const points = Array.from({ length: 900 }, (_, i) => low + ((i + 0.5) / 900) * (high - low)).map((u) => [u, density(u)]);
      const peak = Math.max(...points.map(([, value]) => value), 1e-9);
      context.strokeStyle = themed(color);
      context.lineWidth = 1.8;
      curve(context, points, toX, (value) => base - (value / peak) * rise * 0.72);
    }
    context.strokeStyle = themed("ink");
    line(context, toX(state.cursor[0]), top, toX(state.cursor[0]), bottom);
  }

  const gaussianAt = (q, u) => Math.exp(-(((u - q.mean[0]) / q.factor[0][0]) ** 2) / 2) / q.factor[0][0];
  const aggregateAt = (u) => {
    let sum = 0;
    for (let k = 0; k < codes.count; k++) {
      const spread = codes.spread(k)[0];
      sum += Math.exp(-(((u - codes.at(k)[0]) / spread) ** 2) / 2) / spread;
    }
    return sum / codes.count;
  };

  /** The mixture of all q(z|x) on a grid, each q of at least the width of a cell, since a cell shows a mean over it. */
  function aggregateField() {
    const field = new Float64Array(FIELD * FIELD);
    const cell = (high - low) / FIELD;
    for (let k = 0; k < codes.count; k++) {
      const [a, b] = project(codes.at(k));
      const spread = codes.spread(k);
      const sigma = [0, 1].map((axis) => Math.max(scene.latent === 2 ? spread[axis] : 0.15, 0.6 * cell));
      const reach = sigma.map((s) => Math.ceil((3 * s) / cell));
      const center = [(a - low) / cell - 0.5, (b - low) / cell - 0.5];
      for (let j = Math.max(0, Math.round(center[1]) - reach[1]); j <= Math.min(FIELD - 1, Math.round(center[1]) + reach[1]); j++) {
        for (let i = Math.max(0, Math.round(center[0]) - reach[0]); i <= Math.min(FIELD - 1, Math.round(center[0]) + reach[0]); i++) {
          const square = (((i - center[0]) * cell) / sigma[0]) ** 2 + (((j - center[1]) * cell) / sigma[1]) ** 2;
          field[j * FIELD + i] += Math.exp(-square / 2) / (sigma[0] * sigma[1]);
        }
      }
    }
    return field;
  }

  /** Decode the pictures of the background, a few in each frame. */
  function decodeMosaic() {
    const [channels, height, width] = scene.shape;
    const rows = flat ? 1 : MOSAIC;
    const whole = element("canvas");
    Object.assign(whole, { width: width * MOSAIC, height: height * rows });
    const context = whole.getContext("2d");
    const piece = element("canvas");
    mosaic = { canvas: whole };
    const order = Array.from({ length: rows * MOSAIC }, (_, k) => (k * 197) % (rows * MOSAIC));
    let next = 0;
    const run = { stopped: false };
    const work = () => {
      if (run.stopped) return;
      const until = performance.now() + BUDGET;
      while (next < order.length && performance.now() < until) {
        const [column, row] = [order[next] % MOSAIC, Math.floor(order[next] / MOSAIC)];
        next++;
        const at = (k) => low + ((k + 0.5) / MOSAIC) * (high - low);
        paint(piece, view.picture(lift([at(column), at(row)])), [channels, height, width]);
        context.drawImage(piece, column * width, (rows - 1 - row) * height);
      }
      mosaic.changed = true;
      request();
      if (next < order.length) requestAnimationFrame(work);
    };
    requestAnimationFrame(work);
    return run;
  }

  /** Gray pictures as ink on the page, in the color of the theme; colored ones as they are, but faint. */
  function inked(source) {
    const theme = document.documentElement.dataset.theme;
    if (mosaic.inked && mosaic.theme === theme && !mosaic.changed) return mosaic.inked;
    const made = element("canvas");
    Object.assign(made, { width: source.width, height: source.height });
    const context = made.getContext("2d");
    context.drawImage(source, 0, 0);
    const picture = context.getImageData(0, 0, made.width, made.height);
    const ink = parts(themed("ink"));
    for (let k = 0; k < picture.data.length; k += 4) {
      const level = picture.data[k];
      if (scene.shape[0] === 1) picture.data.set([...ink, level * 0.42], k);
      else picture.data[k + 3] *= 0.45;
    }
    context.putImageData(picture, 0, 0);
    Object.assign(mosaic, { inked: made, theme, changed: false });
    return made;
  }

  let running = null;
  view.picture = (z) => decode(model, z);
  view.start = () => {
    if (state.layers.pictures) running = decodeMosaic();
    place(state.cursor);
  };
  view.show = (known) => { state.known = known; request(); };
  view.place = place;
  view.cursor = () => state.cursor;
  view.setFrame = (frame) => {
    state.frame = frame;
    view.refresh();
  };
  view.refresh = () => {
    aggregate = null;
    if (running) running.stopped = true;
    if (state.layers.pictures) running = decodeMosaic();
    request();
  };
  return view;
}

/** What the axes of the plane, or of the map, mean. */
export function axisNames(scene) {
  if (scene.chart) return scene.chart === "circle" ? { x: "angle of z, in half turns" } : { x: "longitude, in half turns", y: "z₃" };
  if (scene.latent > 2) return { x: "first axis", y: "second axis" };
  return scene.latent === 1 ? { x: "z" } : { x: "z₁", y: "z₂" };
}

export function unit(length, at) {
  return Array.from({ length }, (_, k) => (k === at ? 1 : 0));
}

export function swatch(color) {
  const made = document.createElement("i");
  made.style.background = color;
  return made;
}
