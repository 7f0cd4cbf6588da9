// The tab of a VAE whose z is a code: every value of z decoded, and sums over all of them, which are exact.
import { arrayOf, logSumExp, superscript, written } from "./numbers.mjs";
import { decode, imageTerms, loadModel, logJoint, nodeAt } from "./model.mjs";
import { codeLogits, valuesOfCodes } from "./enumeration.mjs";
import { axes, fitted, paint, themed } from "./drawing.mjs";
import { button, card, element, imagesOf, noteList, quantity, redrawn, strip } from "./parts.mjs";
import { swatch } from "./plane.mjs";
import { imagePad } from "./pad.mjs";
import { factsCard, nearestCard } from "./vae.mjs";

const BARS = 6; // codes of the chart

export function codesTab(scene, page) {
  const model = loadModel(scene, page.buffer);
  const arrayFor = (reference) => arrayOf(reference, page.buffer);
  const examples = imagesOf(scene.images, arrayFor, scene.shape, scene.classes);
  const training = imagesOf(scene.training, arrayFor, scene.shape, scene.classes);
  const codes = valuesOfCodes(scene.variables, scene.values);
  const pictures = codes.map(({ z }) => decode(model, z));
  const nodes = codes.map(({ z }) => nodeAt(model, z));
  const usage = arrayFor(scene.usage);
  const names = codes.map(({ index }) => (index.length > 1 ? `(${index.join(", ")})` : String(index[0])));
  const state = { posterior: null, q: null, chosen: 0 };

  const decodedCanvas = element("canvas", { class: "pixels", role: "img", "aria-label": "The decoded picture E[x|z]" });
  const decodedCaption = element("figcaption", {});
  const seenCaption = element("span", {});
  const near = nearestCard(scene, training);
  const readout = element("p", { class: "hint small", "aria-live": "polite" });
  const all = strip("Values of z", pictures, scene.shape, names.map((name) => `z = ${name}`), show);
  all.classList.add("codes");
  const columns = scene.values ** Math.ceil(scene.variables / 2);
  if (columns <= 20 && codes.length > columns) all.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
  const bars = [...all.children].map((made) => {
    const [exact, encoder] = [element("i", { class: "exact" }), element("i", { class: "encoder" })];
    made.append(element("span", { class: "bars" }, exact, encoder));
    return { exact, encoder };
  });
  const chart = element("canvas", { class: "wide", role: "img", "aria-label": "The most probable codes under p(z|x) and q(z|x)" });
  const request = redrawn(chart, draw);
  const numbers = {
    evidence: quantity("log p(x)", "The logarithm of the sum of p(x|z) p(z) over every value of z, in nats: exact, up to the rounding of the numbers."),
    bound: quantity("bound of the encoder (ELBO)", "The sum of q(z|x) (log p(x, z) − log q(z|x)) over every value of z, in nats."),
    gap: quantity("inference gap", "log p(x) − ELBO = KL(q(z|x), p(z|x)): all that the bound loses for this image."),
  };

  function show(k) {
    state.chosen = k;
    all.select(k);
    paint(decodedCanvas, pictures[k], scene.shape);
    decodedCaption.replaceChildren(element("b", {}, "E[x|z]"), ` of z = ${names[k]}`);
    const share = (table) => (table ? written(100 * table[k], 1) : "…");
    readout.textContent = `z = ${names[k]}: p(z|x) = ${share(state.posterior)} %, q(z|x) = ${share(state.q)} %; of all test images ${written(100 * usage[k], 1)} %`;
    near.show(pictures[k]);
  }

  function ask(image, name) {
    seenCaption.replaceChildren(element("b", {}, "x"), `: ${name}`);
    const terms = imageTerms(model, image);
    const joint = nodes.map((node) => logJoint(terms, node));
    const evidence = logSumExp(joint);
    const logq = codeLogits(model, scene, image);
    state.posterior = joint.map((value) => Math.exp(value - evidence));
    state.q = logq && logq.map(Math.exp);
    numbers.evidence.set({ value: evidence, kind: "exact", places: 3, unit: "nats" });
    if (logq) {
      const bound = logq.reduce((sum, value, k) => sum + (state.q[k] > 0 ? state.q[k] * (joint[k] - value) : 0), 0);
      numbers.bound.set({ value: bound, kind: "lower bound", places: 3, unit: "nats" });
      numbers.gap.set({ value: Math.max(0, evidence - bound), kind: "exact", places: 3, unit: "nats" });
    }
    bars.forEach(({ exact, encoder }, k) => {
      exact.style.width = `${100 * state.posterior[k]}%`;
      encoder.style.width = `${100 * (state.q?.[k] ?? 0)}%`;
      all.children[k].style.boxShadow = state.posterior[k] > 0.01 ? `0 0 0 ${1 + 3 * state.posterior[k]}px var(--warm)` : "none";
    });
    show(state.posterior.indexOf(Math.max(...state.posterior)));
    request();
  }

  function draw() {
    const { context, width, height } = fitted(chart, 0.5);
    if (!state.posterior) return;
    const best = state.posterior.map((_, k) => k).sort((a, b) => Math.max(state.posterior[b], state.q?.[b] ?? 0) - Math.max(state.posterior[a], state.q?.[a] ?? 0)).slice(0, BARS);
    const { toX, toY } = axes(context, { left: 40, top: 20, right: width - 8, bottom: height - 34, x: [-0.5, best.length - 0.5], y: [0, 1], countX: 0, countY: 4, labelX: "z", labelY: "probability" });
    const half = (toX(1) - toX(0)) * 0.34;
    best.forEach((k, place) => {
      for (const [value, color, side] of [[state.posterior[k], "warm", -1], [state.q?.[k] ?? 0, "ink", 0]]) {
        context.fillStyle = themed(color);
        context.fillRect(toX(place) + side * half, toY(value), half, toY(0) - toY(value));
      }
      context.fillStyle = themed("faint");
      context.textAlign = "center";
      context.textBaseline = "top";
      context.fillText(names[k], toX(place), toY(0) + 5);
    });
  }

  const pad = imagePad(scene, model, examples, ask);
  pad.presets.append(button("use the decoded picture as x", () => pad.preset(pictures[state.chosen].map((u) => (model.likelihood.binary ? Number(u > 0.5) : u)), "a decoded picture")));
  const { data, epochs, parameters } = scene.recipe;
  const size = parameters ? `, ${Number(parameters).toLocaleString("en")} parameters` : "";
  const space = scene.variables > 1 ? `${scene.variables} variables of ${scene.values} values, ${scene.values}${superscript(scene.variables)} = ${codes.length} codes` : `${scene.values} values`;
  return {
    element: element("div", {},
      element("p", { class: "lead" }, element("b", {}, `VAE, z of ${space}`), ` trained on ${data} for ${epochs} epochs${size}. z is a code, so the exact posterior p(z|x) and log p(x) are sums over all codes. Pick an image, or draw one: orange is p(z|x), dark is the encoder’s q(z|x).`),
      noteList(scene.notes),
      element("div", { class: "grid vae" },
        element("div", { class: "column" }, card("Every value of z, decoded", "Choose one, by mouse or arrow keys. The bars are the probabilities of the code for this image.", all, readout)),
        element("div", { class: "column" },
          card("The image x", "Choose a test image or draw one. All numbers are about this image.",
            element("div", { class: "tiles" }, pad.padTile, pad.seenTile(seenCaption), element("figure", { class: "tile" }, decodedCanvas, decodedCaption)), pad.test, pad.presets), near.element),
        element("div", { class: "column last" },
          card("Why the bound is loose", null, chart,
            element("div", { class: "legend" }, element("span", {}, swatch("var(--warm)"), "p(z|x), exact"), element("span", {}, swatch("var(--ink)"), "q(z|x), encoder")),
            element("div", { class: "numbers" }, ...(scene.model.encoder ? Object.values(numbers) : [numbers.evidence]))),
          factsCard(scene, true)))),
    start: () => { if (examples.images.length) pad.choose(0); },
  };
}
