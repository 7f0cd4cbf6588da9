// The tab of a VAE.
import { arrayOf, logSumExp, meanAndError, superscript, written } from "./numbers.mjs";
import { encode, giveLabel, loadModel } from "./model.mjs";
import { importanceBounds } from "./gaps.mjs";
import { axes, curve, ellipse, fieldPicture, fitted, line, mixed, paint, themed } from "./drawing.mjs";
import { card, choice, element, imagesOf, nearest, noteList, options, quantity, redrawn, rowsOf, slider, strip, thumbnail, button } from "./parts.mjs";
import { axisNames, planeCard, swatch, unit } from "./plane.mjs";
import { imagePad } from "./pad.mjs";

const KS = [1, 2, 4, 8, 16, 32, 64, 128, 256];
const SLIDERS = 12; // of the dimensions of z, at most

export function vaeTab(scene, page) {
  const model = loadModel(scene, page.buffer);
  const arrayFor = (reference) => arrayOf(reference, page.buffer);
  const codes = codesOf(scene, arrayFor);
  const examples = imagesOf(scene.images, arrayFor, scene.shape, scene.classes);
  const training = imagesOf(scene.training, arrayFor, scene.shape, scene.classes);
  const scored = Boolean(model.decoder && model.prior && model.likelihood);
  const grid = scored && scene.latent <= 2;
  const gaussian = Boolean(model.encoder && model.posterior && model.posterior.name !== "direction");
  const given = model.classes ? "x|y" : "x";
  const known = {};
  let question = 0;

  const decodedCanvas = element("canvas", { class: "pixels", role: "img", "aria-label": `The decoded picture ${scene.decoded}` });
  const decodedCaption = element("figcaption", {});
  const decodedTile = element("figure", { class: "tile" }, decodedCanvas, decodedCaption);
  const picture = scene.atlas ? atlasPicture(scene, arrayFor, codes) : null;
  const plane = planeCard(scene, model, codes, (z) => showDecoded(z));
  if (picture) plane.picture = picture;

  const seenCaption = element("span", {});
  const pad = imagePad(scene, model, examples, (image, name, row) => {
    if (row !== undefined && examples.labels) relabel(examples.labels[row]);
    ask(image, name);
  });
  const close = closeUp(scene, gaussian);
  const gap = gapCard(known, grid, given, gaussian);
  const draws = drawsCard(known, grid, given);
  const near = nearestCard(scene, training);

  function showDecoded(z) {
    if (!model.decoder && !picture) return;
    const image = plane.picture(z);
    paint(decodedCanvas, image, scene.shape);
    decodedCaption.replaceChildren(element("b", {}, scene.decoded), picture ? ", nearest of the atlas" : " at the chosen z");
    near.show(image);
  }

  function ask(image, name) {
    question++;
    for (const key of Object.keys(known)) delete known[key];
    seenCaption.replaceChildren(element("b", {}, "x"), `: ${name}`);
    gap.clear();
    page.worker(scene).ask(question, image, model.label);
  }

  // A class-conditional model is shown for one label: that of the test image, until another is chosen.
  const labels = model.classes ? options("label y", scene.classes, (label) => { relabel(label); ask(pad.image(), pad.name()); }) : null;
  function relabel(label) {
    if (!labels || label === model.label) return;
    labels.select(label);
    giveLabel(model, label);
    plane.refresh();
    plane.place(plane.cursor());
  }

  page.worker(scene).listen((message) => {
    if (message.question !== question) return;
    if (message.kind === "encoded") {
      known.q = message.q?.factor ? message.q : null;
      if (message.q) plane.place(message.q.mean.slice(), scene.chart ? ", the direction of q(z|x)" : ", the mean of q(z|x)");
    }
    if (message.kind === "posterior") known.posterior = message;
    if (message.kind === "bound") known.bound = message.bound;
    if (message.kind === "best") known.best = message.best;
    if (message.kind === "weights") known.weights = message.weights;
    plane.show(known);
    close.show(known);
    gap.show();
    draws.show();
  });

  const imageCard = card(
    "The image x",
    scored ? "Choose a test image or draw one. All numbers are about this image." : "Choose a test image or draw one: the encoder places it, and the decoder returns it.",
    element("div", { class: "tiles" }, pad.padTile, pad.seenTile(seenCaption), decodedTile),
    pad.test,
    pad.presets,
  );
  const use = button("use the decoded picture as x", () => {
    const image = plane.picture(plane.cursor()).map((u) => (model.likelihood?.binary ? (u > 0.5 ? 1 : 0) : u));
    pad.preset(image, "a decoded picture");
  });
  if (model.decoder) pad.presets.append(use);

  const many = scene.latent > 2 ? manyDimensions(scene, model, codes, plane, examples) : [];
  const tab = element("div", {},
    element("p", { class: "lead" }, ...leadOf(scene)),
    noteList(scene.notes),
    labels,
    element("div", { class: "grid vae" },
      element("div", { class: "column" }, plane.element, scored ? near.element : null),
      element("div", { class: "column" }, imageCard, ...many, scored && (grid || gaussian) ? gap.element : null, scored ? null : factsCard(scene, scored)),
      element("div", { class: "column last" }, grid ? close.element : null, scored && gaussian ? draws.element : null, scored ? factsCard(scene, scored) : near.element),
    ),
  );
  return {
    element: tab,
    start: () => {
      plane.start();
      if (examples.images.length) pad.choose(0);
    },
  };
}

function leadOf(scene) {
  const { data, epochs, parameters } = scene.recipe;
  const size = parameters ? `, ${Number(parameters).toLocaleString("en")} parameters` : "";
  const scored = scene.model.likelihood.name !== "none" && scene.model.decoder && scene.model.prior;
  const shown = !scored
    ? "the encoder places it in the plane, and the decoder returns a picture from there."
    : scene.latent > 2
      ? "it is encoded, and the plane goes through its code."
      : scene.chart
        ? "the orange cloud is the exact posterior p(z|x) on the sphere; the cross is the direction of the encoder’s q(z|x)."
        : "the orange cloud is the exact posterior p(z|x), the ellipse is the encoder’s q(z|x), and their difference is what the bound loses.";
  const space = `${scene.space[0]}${superscript(Number(scene.space.slice(1)))}`;
  const labeled = scene.model.classes ? " Everything is shown for one label y, that of the test image or one that you choose." : "";
  return [element("b", {}, `${scene.title}, z ∈ ${space}`), ` trained on ${data} for ${epochs} epochs${size}. Pick an image, or draw one: ${shown}${labeled}`];
}

function codesOf(scene, arrayFor) {
  if (!scene.codes) return null;
  const mean = arrayFor(scene.codes.mean);
  const spread = arrayFor(scene.codes.log_spread);
  const d = scene.latent;
  return {
    count: mean.length / d,
    labels: scene.codes.labels && arrayFor(scene.codes.labels),
    at: (k) => mean.subarray(k * d, (k + 1) * d),
    spread: (k) => Array.from(spread.subarray(k * d, (k + 1) * d), Math.exp),
  };
}

/** The nearest picture of the atlas, where the decoder could not be exported. */
function atlasPicture(scene, arrayFor) {
  const { side, low, high, pixels } = scene.atlas;
  const pictures = rowsOf(arrayFor(pixels), scene.shape, 1 / 255);
  const axesOf = scene.latent > 2 && scene.axes ? scene.axes : null;
  const index = (u) => Math.min(side - 1, Math.max(0, Math.round(((u - low) / (high - low)) * (side - 1))));
  return (z) => {
    if (scene.latent === 1) return pictures[index(z[0])];
    const place = axesOf
      ? axesOf.directions.slice(0, 2).map((row) => row.reduce((sum, u, i) => sum + u * (z[i] - axesOf.center[i]), 0))
      : z;
    return pictures[index(place[1]) * side + index(place[0])];
  };
}

/** The exact posterior around its mass, with the encoder's and the best Gaussian's ellipses. */
function closeUp(scene, gaussian) {
  const canvas = element("canvas", { class: "wide", role: "img", "aria-label": "Exact posterior around its mass" });
  const note = element("p", { class: "hint small" });
  const mass = quantity("mass of the heat map", "The sum over the shown cells of density times area. It would be 1 for a picture without error; what is missing lies outside of the window or between the cells.");
  let known = {};
  const request = redrawn(canvas, draw);
  function draw() {
    const flat = scene.latent === 1;
    const { context, width, height } = fitted(canvas, flat ? 0.6 : 0.82);
    const { posterior, q, best } = known;
    if (!posterior) return;
    const [left, top, right, bottom] = [46, flat ? 8 : 22, width - 8, height - 36];
    const names = axisNames(scene);
    if (flat) {
      const [[x0, x1]] = posterior.window;
      const line = Array.from(posterior.density, (value, k) => [x0 + ((k + 0.5) / posterior.count) * (x1 - x0), value]);
      const normal = (g) => line.map(([u]) => [u, Math.exp(-(((u - g.mean[0]) / g.factor[0][0]) ** 2) / 2) / g.factor[0][0] / Math.sqrt(2 * Math.PI)]);
      const curves = [["warm", line], ...(q ? [["ink", normal(q)]] : []), ...(best ? [["cool", normal(best.q)]] : [])];
      const peak = Math.max(...curves.flatMap(([, points]) => points.map(([, value]) => value)));
      const { toX, toY } = axes(context, { left, top, right, bottom, x: [x0, x1], y: [0, 1.05 * peak], countX: 4, labelX: names.x });
      for (const [color, points] of curves) {
        context.strokeStyle = themed(color);
        context.lineWidth = 2;
        curve(context, points, toX, toY);
      }
      return;
    }
    // equal scales on both axes
    const [[x0, x1], [y0, y1]] = posterior.window;
    const stretch = (right - left) / (bottom - top);
    const middle = (x0 + x1) / 2;
    const half = ((x1 - x0) / 2) * stretch;
    const { toX, toY } = axes(context, { left, top, right, bottom, x: [middle - half, middle + half], y: [y0, y1], countX: 4, countY: 4, labelX: names.x, labelY: names.y });
    context.save();
    context.beginPath();
    context.rect(left, top, right - left, bottom - top);
    context.clip();
    const peak = Math.max(...posterior.density);
    const color = mixed(themed("warm"), themed("warm"), 0);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(fieldPicture(posterior.density, posterior.count, posterior.count, (value) => [...color, 255 * Math.sqrt(value / peak)]),
      toX(x0), toY(y1), toX(x1) - toX(x0), toY(y0) - toY(y1));
    if (best) {
      context.strokeStyle = themed("cool");
      context.lineWidth = 2;
      context.setLineDash([6, 4]);
      ellipse(context, best.q, 1, toX, toY);
      ellipse(context, best.q, 2, toX, toY);
      context.setLineDash([]);
    }
    if (q) {
      context.strokeStyle = themed("ink");
      context.lineWidth = 1.8;
      ellipse(context, q, 1, toX, toY);
      ellipse(context, q, 2, toX, toY);
    }
    context.restore();
  }
  return {
    element: card("The exact posterior", null, canvas,
      element("div", { class: "legend" },
        element("span", {}, swatch("var(--warm)"), "p(z|x), exact"),
        gaussian && element("span", {}, swatch("var(--ink)"), "q(z|x), encoder: 1σ, 2σ"),
        gaussian && element("span", {}, swatch("var(--cool)"), "best Gaussian of its family")),
      note, mass),
    show: (now) => {
      known = now;
      if (now.posterior) {
        const { cells, side, milliseconds } = now.posterior;
        note.textContent = `Computed on ${cells.toLocaleString("en")} cells, the finest ${side.toPrecision(2)} wide, in ${milliseconds} ms.`;
        mass.set({ value: now.posterior.mass, kind: "numerical", places: 4 });
      }
      request();
    },
  };
}

/** log p(x), the bounds, and the gap in its two parts. */
function gapCard(known, grid, given, gaussian) {
  const numbers = {
    evidence: quantity(`log p(${given})`, "The logarithm of the probability that the model gives to this very image, in nats: the integral of p(x|z) p(z) over all z, computed in this page on a grid that is refined where the mass is. The error is the change when the last cells are halved. It is numerical: not a proof."),
    best: quantity("bound of the best Gaussian", "The largest bound that a Gaussian of the encoder’s family was found to reach for this image alone, by a search on the grid, evaluated with the decoder. What is still missing to log p(x) is the approximation gap: the posterior is not such a Gaussian."),
    encoder: quantity("bound of the encoder (ELBO)", "E_q[log p(x, z)] + H(q) for the encoder’s own q(z|x), by a Gauss–Hermite rule of 12 × 12 points; its error is the change from 9 × 9 points. It is what training maximizes."),
    sampled: quantity("bound of the encoder (ELBO), sampled", "The mean of log p(x, z) − log q(z|x) over draws of q, with one standard error."),
    inference: quantity("inference gap", "log p(x) − ELBO = KL(q(z|x), p(z|x)): all that the bound loses for this image."),
    approximation: quantity("… approximation gap", "The part that no Gaussian of the family can win back. An upper bound, since the search may miss a better one."),
    amortization: quantity("… amortization gap", "The part that the encoder loses against the best Gaussian, since one network serves all images. A lower bound."),
  };
  const amortization = element("div", { class: "amortization" });
  const approximation = element("div", { class: "approximation" });
  const bar = element("div", { class: "gap", role: "img" }, amortization, approximation);
  const [low, high] = [element("span"), element("span")];
  const gaps = grid && gaussian; // without a Gaussian q the page has log p(x) alone
  const shown = gaps ? ["evidence", "best", "encoder", "inference", "approximation", "amortization"] : grid ? ["evidence"] : ["sampled"];
  const made = card(gaps || !grid ? "Why the bound is loose" : "How probable the image is", grid && !gaps ? "The integral over all z, in nats." : gaps ? "From the encoder’s bound to log p(x), in nats." : "z has more than two dimensions, or a part of the model is not in the page: bounds by draws of q.",
    ...(gaps ? [bar, element("div", { class: "ends" }, low, high),
      element("div", { class: "legend" }, element("span", {}, swatch("var(--warm)"), "amortization gap"), element("span", {}, swatch("var(--cool)"), "approximation gap"))] : []),
    element("div", { class: "numbers" }, ...shown.map((key) => numbers[key])));
  made.id = "gap";
  return {
    element: made,
    clear: () => {
      for (const key of shown) numbers[key].clear();
      amortization.textContent = approximation.textContent = "";
      amortization.style.flex = approximation.style.flex = "0 0 0%";
      low.textContent = high.textContent = "";
    },
    show: () => {
      const { posterior, bound, best, weights } = known;
      if (!grid && weights) {
        const { mean, error } = meanAndError(weights);
        numbers.sampled.set({ value: mean, error, kind: "lower bound", unit: "nats" });
      }
      if (posterior) {
        numbers.evidence.set({ value: posterior.logEvidence, error: posterior.error, kind: "numerical", places: 3, unit: "nats" });
        high.textContent = `log p(${given}) ${written(posterior.logEvidence, 2)}`;
      }
      if (posterior && bound) {
        numbers.encoder.set({ value: bound.value, error: bound.error, kind: "lower bound", places: 3, unit: "nats" });
        numbers.inference.set({ value: posterior.logEvidence - bound.value, error: bound.error + posterior.error, kind: "numerical", places: 3, unit: "nats" });
        low.textContent = `bound ${written(bound.value, 2)}`;
      }
      if (posterior && bound && best) {
        const [lost, missed] = [Math.max(0, best.value - bound.value), Math.max(0, posterior.logEvidence - best.value)];
        const error = best.error + posterior.error;
        numbers.best.set({ value: best.value, error: best.error, kind: "lower bound", places: 3, unit: "nats" });
        numbers.approximation.set({ value: missed, error, kind: "upper bound", places: 3, unit: "nats" });
        numbers.amortization.set({ value: lost, error: best.error + bound.error, kind: "lower bound", places: 3, unit: "nats" });
        const total = Math.max(1e-9, lost + missed);
        for (const [part, value] of [[amortization, lost], [approximation, missed]]) {
          part.style.flex = `0 0 ${(100 * value) / total}%`;
          part.textContent = value / total > 0.14 ? written(value, 2) : "";
        }
        bar.setAttribute("aria-label", `amortization gap ${written(lost, 2)}, approximation gap ${written(missed, 2)} nats`);
      }
    },
  };
}

/** The importance-weighted bound of K draws, with its scatter, climbing to the exact line. */
function drawsCard(known, grid, given) {
  let K = 8;
  const canvas = element("canvas", { class: "wide", role: "img", "aria-label": "Importance-weighted bounds against the number of draws" });
  const request = redrawn(canvas, draw);
  const value = quantity("mean of the bound of K draws", "log of the mean of K importance weights p(x, z)/q(z|x), averaged over disjoint groups of 2 048 draws of q (Burda et al. 2016). In expectation it lies below log p(x) and rises with K; a single value may lie above. With its standard error over the groups.");
  const control = slider("K draws", { min: 0, max: KS.length - 1, step: 1, value: KS.indexOf(K) }, (k) => String(KS[k]), (k) => { K = KS[k]; show(); });
  function show() {
    if (known.weights) {
      const { mean, error } = meanAndError(importanceBounds(known.weights, K));
      value.set({ value: mean, error, kind: "lower bound", unit: "nats" });
    } else value.clear();
    request();
  }
  function draw() {
    const { context, width, height } = fitted(canvas, 0.56);
    const { weights, posterior } = known;
    if (!weights) return;
    const all = KS.map((size) => importanceBounds(weights, size));
    const means = all.map((groups) => meanAndError(groups));
    const top = posterior?.logEvidence ?? logSumExp(weights) - Math.log(weights.length);
    const bottom = Math.min(means[0].mean, top - 0.05);
    const room = Math.max(0.05, top - bottom);
    const y = [bottom - 0.9 * room, top + 0.45 * room];
    const [left, upper, right, lower] = [52, 22, width - 10, height - 36];
    const { toX, toY } = axes(context, { left, top: upper, right, bottom: lower, x: [-0.5, KS.length - 0.5], y, countX: 0, countY: 5, labelX: "K draws", labelY: "bound, nats" });
    context.fillStyle = themed("faint");
    context.textAlign = "center";
    context.textBaseline = "top";
    KS.forEach((size, k) => context.fillText(String(size), toX(k), lower + 5));
    context.save();
    context.beginPath();
    context.rect(left, upper, right - left, lower - upper);
    context.clip();
    all.forEach((groups, k) => {
      const chosen = KS[k] === K;
      context.fillStyle = themed(chosen ? "warm" : "faint");
      context.globalAlpha = chosen ? 0.75 : 0.28;
      groups.slice(0, 60).forEach((bound, i) => {
        context.beginPath();
        context.arc(toX(k + (((i * 0.618) % 1) - 0.5) * 0.5), toY(bound), chosen ? 2.6 : 1.8, 0, 7);
        context.fill();
      });
    });
    context.globalAlpha = 1;
    context.strokeStyle = themed("warm");
    context.lineWidth = 2;
    curve(context, means.map(({ mean }, k) => [k, mean]), toX, toY);
    if (grid && posterior) {
      context.strokeStyle = themed("good");
      context.lineWidth = 2;
      line(context, left, toY(posterior.logEvidence), right, toY(posterior.logEvidence));
      context.fillStyle = themed("good");
      context.font = "600 12px system-ui, sans-serif";
      context.textAlign = "right";
      context.textBaseline = "bottom";
      context.strokeStyle = themed("card"); // an outline that keeps the points apart from the name
      context.lineWidth = 4;
      context.lineJoin = "round";
      context.strokeText(`log p(${given})`, right - 4, toY(posterior.logEvidence) - 4);
      context.fillText(`log p(${given})`, right - 4, toY(posterior.logEvidence) - 4);
    }
    context.restore();
  }
  return { element: card("More draws, a tighter bound", null, control, canvas, value), show };
}

/** The training images that are nearest to the decoded picture. */
export function nearestCard(scene, training) {
  const place = element("div", { class: "strip" });
  let timer = 0;
  const made = card("Nearest training images", `By squared differences of pixels, among ${training.images.length.toLocaleString("en")} training images in this page.`, place);
  made.classList.add("later");
  return {
    element: made,
    show: (image) => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        place.replaceChildren(...nearest(image, training.images, 8).map(({ k, distance }) =>
          element("figure", { class: "tile" }, thumbnail(training.images[k], scene.shape, `training image: ${training.names[k]}`),
            element("figcaption", {}, `${training.names[k]} · ${Math.sqrt(distance).toFixed(1)}`))));
      }, 120);
    },
  };
}

/** For z of more than two dimensions: two axes of choice, sliders, and the line between two images. */
function manyDimensions(scene, model, codes, plane, examples) {
  const d = scene.latent;
  const options = [];
  for (let k = 0; scene.axes && k < Math.min(d, 8); k++) options.push([`p${k}`, `principal axis ${k + 1}`]);
  for (let k = 0; k < d; k++) options.push([`z${k}`, `z${k + 1}`]);
  const direction = (key) => (key[0] === "p" ? scene.axes.directions[Number(key.slice(1))] : unit(d, Number(key.slice(1))));
  let [first, second] = [options[0][0], options[1][0]];
  const frame = () => plane.setFrame({ origin: scene.axes?.center ?? new Array(d).fill(0), first: direction(first), second: direction(second) });
  const sliders = Array.from({ length: Math.min(d, SLIDERS) }, (_, k) =>
    slider(`z${k + 1}`, { min: scene.box[0], max: scene.box[1], step: 0.01, value: 0 }, (u) => written(u, 2), (u) => {
      const z = plane.cursor().slice();
      z[k] = u;
      plane.place(z);
    }));
  plane.follow = (z) => sliders.forEach((made, k) => made.move(z[k]));
  setTimeout(frame, 0);
  const cards = [card("Axes and sliders", d > SLIDERS ? `The first ${SLIDERS} of ${d} dimensions have sliders.` : null,
    element("div", { class: "row" }, choice("across", options, first, (key) => { first = key; frame(); }), choice("up", options, second, (key) => { second = key; frame(); })),
    element("div", { class: "scroll" }, ...sliders))];
  if (model.encoder && model.posterior && model.decoder) cards.push(betweenCard(scene, model, plane, examples));
  return cards;
}

/** Pictures on the straight line between the codes of two test images. */
function betweenCard(scene, model, plane, examples) {
  const ends = [0, Math.min(1, examples.images.length - 1)];
  const shown = examples.images.slice(0, 40);
  const strips = ["from", "to"].map((name, side) =>
    strip(`Interpolate ${name}`, shown, scene.shape, examples.names.map((label, k) => `${name} image ${k + 1}: ${label}`), (k) => { ends[side] = k; move(control.input.value); }));
  strips.forEach((made, side) => made.select(ends[side]));
  const control = slider("from 0 to 1", { min: 0, max: 1, step: 0.01, value: 0 }, (t) => written(t, 2), move);
  function move(t) {
    const [a, b] = ends.map((k) => encode(model, shown[k]).mean);
    plane.place(Array.from(a, (u, i) => u + Number(t) * (b[i] - u)), ", between the means of two images");
  }
  return card("Between two images", "The straight line between their codes, decoded.", strips[0], strips[1], control);
}

export function factsCard(scene, scored) {
  const numbers = scene.facts.map((fact) => {
    const made = quantity(`${fact.name}, ${Number(fact.n).toLocaleString("en")} images`, `The mean over the first ${fact.n} test images, from the run’s own evaluation in Python (${fact.method || "mean over images"}), with one standard error over the images.`);
    made.set({ value: fact.value, error: fact.stderr, kind: fact.kind, unit: "nats" });
    return made;
  });
  const rounding = scene.rounding && quantity("rounding of the weights", `The page holds the weights as ${scene.rounding.encoding === "int8" ? "8-bit whole numbers with a scale for each row" : "half floats"}. Over ${scene.rounding.images} test images, this is the mean change of ${scene.rounding.of} against the weights of the run; the largest is ${scene.rounding.largest.toFixed(3)} ${scene.rounding.unit}.`);
  if (rounding) rounding.set({ value: scene.rounding.mean, kind: "numerical", places: 4, unit: scene.rounding.unit });
  return card(scored ? "The model on all test images" : "How exact this page is", numbers.length || !scored ? null : "Run `latentia evaluate` on this run for log p(x) of the whole test set.", element("div", { class: "numbers" }, ...numbers, rounding));
}
