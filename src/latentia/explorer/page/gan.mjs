// The tab of a GAN on images: interpolations, D's score, the nearest training images, the film of one noise.
import { arrayOf, normalSource, superscript, uniformSource, written } from "./numbers.mjs";
import { apply, loadLayers, sigmoid } from "./network.mjs";
import { onGreatCircle } from "./toys.mjs";
import { fitted, line, paint, themed } from "./drawing.mjs";
import { button, card, element, imagesOf, nearest, noteList, options, quantity, redrawn, rowsOf, slider, strip, thumbnail } from "./parts.mjs";

const SAMPLES = 30;

export function ganTab(scene, page) {
  const arrayFor = (reference) => arrayOf(reference, page.buffer);
  const generator = scene.model.generator && loadLayers(scene.model.generator, page.buffer);
  const discriminator = scene.model.discriminator && loadLayers(scene.model.discriminator, page.buffer);
  const training = imagesOf(scene.training, arrayFor, scene.shape, scene.classes);
  const d = scene.latent;
  let noises = rowsOf(arrayFor(scene.noises), [d]);
  const atlas = scene.atlas && rowsOf(arrayFor(scene.atlas.pixels), scene.shape, 1 / 255);
  const state = { from: 0, to: 1, t: 0, label: 0 };
  let seed = 1;

  const make = (z) => apply(generator, Float32Array.from(z), state.label).data.map(sigmoid);
  const current = () => {
    if (generator) return make(onGreatCircle(noises[state.from], noises[state.to], state.t));
    return atlas[state.from * scene.atlas.steps + Math.round(state.t * (scene.atlas.steps - 1))];
  };

  const large = element("canvas", { class: "pixels", role: "img", "aria-label": "The generated image", style: "width:min(100%,18rem);aspect-ratio:1" });
  const score = quantity("D’s logit", "The trained discriminator’s logit for the shown image. It was trained against earlier generators: it is a score within this game, not a probability that holds outside of it.");
  const scale = element("canvas", { class: "wide", role: "img", "aria-label": "D’s logit among those of training and generated images" });
  const near = element("div", { class: "strip" });
  let logit = null;
  const request = redrawn(scale, drawScale);

  function show() {
    const image = current();
    paint(large, image, scene.shape);
    if (discriminator) {
      logit = apply(discriminator, { data: Float32Array.from(image), shape: scene.shape }, state.label).data[0];
      score.set({ value: logit, kind: "numerical", places: 2 });
    }
    request();
    clearTimeout(show.timer);
    show.timer = setTimeout(() => near.replaceChildren(...nearest(image, training.images, 8).map(({ k, distance }) =>
      element("figure", { class: "tile" }, thumbnail(training.images[k], scene.shape, `training image: ${training.names[k]}`),
        element("figcaption", {}, `${training.names[k]} · ${Math.sqrt(distance).toFixed(1)}`)))), 120);
  }

  function drawScale() {
    const { context, width, height } = fitted(scale, 0.2);
    if (!scene.scores) return;
    const { real, fake } = scene.scores;
    const low = Math.min(real[0], fake[0], logit ?? 0) - 1;
    const high = Math.max(real[4], fake[4], logit ?? 0) + 1;
    const toX = (u) => 90 + ((u - low) / (high - low)) * (width - 100);
    context.font = "12px system-ui, sans-serif";
    [["training", real, "ink"], ["generated", fake, "accent"]].forEach(([name, shares, color], k) => {
      const y = height * (0.28 + 0.36 * k);
      context.fillStyle = themed("faint");
      context.textBaseline = "middle";
      context.textAlign = "left";
      context.fillText(name, 2, y);
      context.strokeStyle = context.fillStyle = themed(color);
      line(context, toX(shares[0]), y, toX(shares[4]), y);
      context.globalAlpha = 0.35;
      context.fillRect(toX(shares[1]), y - 7, toX(shares[3]) - toX(shares[1]), 14);
      context.globalAlpha = 1;
      context.fillRect(toX(shares[2]) - 1, y - 7, 2, 14);
    });
    if (logit === null) return;
    context.strokeStyle = themed("warm");
    context.lineWidth = 2;
    line(context, toX(logit), 4, toX(logit), height - 4);
  }

  const control = slider("position", { min: 0, max: 1, step: generator ? 0.01 : 1 / (scene.atlas.steps - 1), value: 0 }, (t) => written(t, 2), (t) => { state.t = t; show(); });
  const ends = element("div", {});
  function choosers() {
    const shown = noises.map((z, k) => (generator ? make(z) : atlas[k * scene.atlas.steps]));
    const names = (side) => shown.map((_, k) => `${side}, noise ${k + 1}`);
    const [from, to] = ["from", "to"].map((side) => strip(`Interpolate ${side}`, shown, scene.shape, names(side), (k) => {
      state[side] = k;
      if (!generator) state.to = (state.from + 1) % noises.length;
      show();
    }));
    from.select(state.from);
    to.select(state.to);
    const row = (name, made) => element("div", { class: "named" }, element("span", { class: "hint" }, name), made);
    ends.replaceChildren(row("from", from), ...(generator ? [row("to", to)] : []));
  }

  // The class of the interpolations; the samples below show every class in turn.
  const labels = scene.model.conditional && generator ? options("label y", scene.classes, (label) => { give(label); choosers(); show(); }) : null;
  function give(label) {
    state.label = label;
    labels?.select(label);
  }

  const samples = element("div", { class: "strip", style: "flex-wrap:wrap" });
  function sample() {
    if (!generator) return;
    seed++;
    const normal = normalSource(seed);
    const uniform = uniformSource(seed);
    noises = noises.map(() => Float32Array.from({ length: d }, () => (scene.distribution === "normal" ? normal() : 2 * uniform() - 1)));
    choosers();
    fill();
    show();
  }
  function fill() {
    if (!generator) return;
    const normal = normalSource(1000 + seed);
    const uniform = uniformSource(1000 + seed);
    samples.replaceChildren(...Array.from({ length: SAMPLES }, (_, k) => {
      const z = Float32Array.from({ length: d }, () => (scene.distribution === "normal" ? normal() : 2 * uniform() - 1));
      const label = scene.model.conditional ? k % scene.model.conditional : 0;
      const image = apply(generator, z, label).data.map(sigmoid);
      return element("button", { type: "button", "aria-label": `use sample ${k + 1}`, onclick: () => { noises[state.from] = z; give(label); state.t = 0; control.move(0); choosers(); show(); } },
        thumbnail(image, scene.shape, `sample ${k + 1}`));
    }));
  }

  const rounding = scene.rounding && quantity("rounding of the weights", `The page holds the weights as ${scene.rounding.encoding === "int8" ? "8-bit whole numbers with a scale for each row" : "half floats"}. Over ${scene.rounding.images} samples, this is the mean change of a pixel (of 1); the largest is ${scene.rounding.largest.toFixed(4)}.`);
  if (rounding) rounding.set({ value: scene.rounding.mean, kind: "numerical", places: 5 });

  return {
    element: element("div", {},
      element("p", { class: "lead" }, element("b", {}, `${scene.model.conditional ? "Class-conditional GAN" : "GAN"}, z ∈ R${superscript(d)}`), ` trained on ${scene.recipe.data} for ${scene.recipe.epochs} epochs. A GAN has no likelihood and no encoder: look at what it makes, how it changes with z, and whether it copies.`),
      noteList(scene.notes),
      labels,
      element("div", { class: "grid gan" },
        element("div", { class: "column" },
          card("Between two draws of z", generator ? "Move the slider: z goes along the great circle from one draw to the other, and the page computes G(z)." : "Pictures on the great circle between two draws of z, made in Python.",
            element("div", { class: "row" }, large), control, ends,
            element("div", { class: "chips" }, generator && button("new draws", sample))),
          scene.film.length ? filmCard(scene.film) : null),
        element("div", { class: "column" },
          generator && card("Samples", "Choose one to start from it.", samples),
          discriminator && card("What D says of it", "D’s logit (line) among those of 500 training and 500 generated images: 5, 25, 50, 75 and 95 %.", scale, score),
          card("Nearest training images", `By squared differences of pixels, among ${training.images.length.toLocaleString("en")} training images in this page: a copy would have a distance near 0.`, near),
          rounding && card("How exact this page is", null, rounding)))),
    start: () => { choosers(); fill(); show(); },
  };
}

/** The same noise through training: the whole grid, with a slider over the epochs. */
function filmCard(film) {
  const picture = element("img", { alt: "", style: "width:100%;border-radius:8px;image-rendering:pixelated;display:block" });
  const show = (k) => { picture.src = film[k].picture; picture.alt = `samples after epoch ${film[k].epoch}`; };
  show(film.length - 1);
  return card("One noise through training", "The same 64 draws of z after each of these epochs.", slider("epoch", { min: 0, max: film.length - 1, step: 1, value: film.length - 1 }, (k) => String(film[k].epoch), show), picture);
}
