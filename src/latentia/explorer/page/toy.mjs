// The tab of a GAN on a toy distribution of the plane, and the live Dirac-GAN.
import { arrayOf, written } from "./numbers.mjs";
import { sigmoid } from "./network.mjs";
import { bestDiscriminator, jensenShannon, slopeAt } from "./toys.mjs";
import { DIRAC_LOSSES, diracEigenvalues, diracField, diracStep, diracStepRadius } from "./dirac.mjs";
import { axes, curve, fieldPicture, fitted, line, mixed, themed } from "./drawing.mjs";
import { button, card, choice, element, noteList, quantity, redrawn, slider, toggle } from "./parts.mjs";
import { swatch } from "./plane.mjs";

const SECONDS = 0.7; // of a frame, when playing
const ARROWS = 160;

export function toyTab(scene, page) {
  const arrayFor = (reference) => reference && arrayOf(reference, page.buffer);
  const logP = arrayFor(scene.log_p);
  const real = arrayFor(scene.real);
  const frames = scene.frames.map((frame) => ({ ...frame, fake: arrayFor(frame.fake), logits: arrayFor(frame.logits), logQ: arrayFor(frame.log_q) }));
  const cells = scene.side;
  const area = ((scene.box[0][1] - scene.box[0][0]) / cells[0]) * ((scene.box[1][1] - scene.box[1][0]) / cells[1]);
  const state = { at: frames.length - 1, arrows: true, real: true, playing: null };

  const canvases = ["D of the game", "D*, the best one"].map((name) => element("canvas", { class: "wide", role: "img", "aria-label": name }));
  const requests = canvases.map((canvas, k) => redrawn(canvas, () => drawField(canvas, k === 1)));
  const chart = element("canvas", { class: "wide", role: "img", "aria-label": "Divergence through training" });
  requests.push(redrawn(chart, drawChart));

  const numbers = {
    modes: quantity("modes found", "Modes of the data with at least one generated point within three standard deviations, of 2 500 points (Lin et al. 2018); of a snapshot, as many as it holds."),
    quality: quantity("points near a mode", "The share of generated points within three standard deviations of the nearest mode, with its standard error. A perfect model has 98.9 % in the plane; more means that the modes are too narrow."),
    jsd: quantity("JSD(data, generator)", "The Jensen–Shannon divergence in nats. Numerical: from both known densities, as means over the cells of this picture; the generator is a flow. Estimate: the generator’s density is a histogram of 200 000 points, whose noise makes the value too large by about the number of cells in use over 1 600 000."),
    bound: quantity("bound from this D", "log 2 − C(D)/2 on held-out points: what this discriminator proves about the JSD from below, in expectation, with its standard error. It is recorded during training, at the nearest recorded epoch."),
  };
  const scrub = slider("epoch", { min: 0, max: frames.length - 1, step: 1, value: state.at }, (k) => String(frames[k].epoch), (k) => show(k));
  const play = button("play", () => {
    if (state.playing) stop();
    else {
      play.textContent = "pause";
      if (state.at === frames.length - 1) show(0);
      state.playing = setInterval(() => (state.at < frames.length - 1 ? show(state.at + 1) : stop()), 1000 * SECONDS);
    }
  });
  function stop() {
    clearInterval(state.playing);
    state.playing = null;
    play.textContent = "play";
  }
  function show(k) {
    state.at = k;
    scrub.move(k);
    const frame = frames[k];
    if (frame.modes_found) {
      numbers.modes.set({ value: frame.modes_found[0], kind: "exact", places: 0, unit: `of ${frame.modes_found[1]}, from ${frame.modes_found[2]} points` });
      numbers.quality.set({ value: 100 * frame.high_quality[0], error: 100 * frame.high_quality[1], kind: "estimate", places: 1, unit: "%" });
    }
    if (frame.jsd) numbers.jsd.set({ value: frame.jsd.value, error: frame.jsd.error, kind: "numerical", places: 4, unit: "nats" });
    else if (frame.logQ) numbers.jsd.set({ value: jensenShannon(logP, frame.logQ, area), kind: frame.density === "exact" ? "numerical" : "estimate", places: 3, unit: "nats" });
    else numbers.jsd.clear();
    const recorded = scene.history.bound.reduce((best, entry) => (best === null || Math.abs(entry[0] - frame.epoch) < Math.abs(best[0] - frame.epoch) ? entry : best), null);
    if (recorded) numbers.bound.set({ value: recorded[1], error: recorded[2], kind: "lower bound", places: 3, unit: "nats" });
    requests.forEach((request) => request());
  }

  function drawField(canvas, best) {
    const frame = frames[state.at];
    const [[x0, x1], [y0, y1]] = scene.box;
    const { context, width, height } = fitted(canvas, Math.min(1.2, Math.max(0.6, (y1 - y0) / (x1 - x0))));
    const [left, top, right, bottom] = [30, 6, width - 6, height - 24];
    const { toX, toY } = axes(context, { left, top, right, bottom, x: [x0, x1], y: [y0, y1] });
    const surface = best ? frame.logQ && bestDiscriminator(logP, frame.logQ, frame.density === "exact" ? 0 : area) : frame.logits && frame.logits.map(sigmoid);
    context.save();
    context.beginPath();
    context.rect(left, top, right - left, bottom - top);
    context.clip();
    if (surface) {
      const [cool, warm, paper] = ["cool", "warm", "card"].map(themed);
      context.imageSmoothingEnabled = true;
      context.drawImage(fieldPicture(surface, cells[0], cells[1], (d) => [...(d > 0.5 ? mixed(paper, cool, 1.7 * (d - 0.5)) : mixed(paper, warm, 1.7 * (0.5 - d))), 255]), left, top, right - left, bottom - top);
    }
    if (state.real) dots(context, real, themed("ink"), 1.6, 0.55, toX, toY);
    dots(context, frame.fake, themed("good"), 2.6, 0.9, toX, toY);
    const field = best ? frame.logQ && Float32Array.from(logP, (value, k) => Math.max(-30, Math.min(30, value - frame.logQ[k]))) : frame.logits;
    if (state.arrows && field) arrows(context, frame.fake, field, toX, toY);
    context.restore();
    if (!surface) {
      context.fillStyle = themed("faint");
      context.textAlign = "center";
      context.fillText(best ? "this snapshot holds no density of the generator" : "this snapshot holds no discriminator", width / 2, height / 2);
    }
  }
  function dots(context, points, color, size, alpha, toX, toY) {
    context.fillStyle = color;
    context.globalAlpha = alpha;
    for (let k = 0; k < points.length; k += 2) context.fillRect(toX(points[k]) - size / 2, toY(points[k + 1]) - size / 2, size, size);
    context.globalAlpha = 1;
  }
  function arrows(context, points, field, toX, toY) {
    const slopes = Array.from({ length: Math.min(ARROWS, points.length / 2) }, (_, k) => {
      const point = [points[2 * k], points[2 * k + 1]];
      return { point, slope: slopeAt(field, cells, scene.box, point) };
    });
    const sizes = slopes.map(({ slope }) => Math.hypot(...slope)).sort((a, b) => a - b);
    const usual = sizes[Math.floor(0.8 * sizes.length)] || 1;
    context.strokeStyle = themed("ink");
    context.lineWidth = 1.2;
    for (const { point, slope } of slopes) {
      const size = Math.hypot(...slope);
      const length = 18 * Math.min(1.4, size / usual);
      if (length < 2) continue;
      const [x, y] = [toX(point[0]), toY(point[1])];
      const [dx, dy] = [(slope[0] / size) * length, (-slope[1] / size) * length];
      line(context, x, y, x + dx, y + dy);
      line(context, x + dx, y + dy, x + 0.7 * dx - 0.22 * dy, y + 0.7 * dy + 0.22 * dx);
      line(context, x + dx, y + dy, x + 0.7 * dx + 0.22 * dy, y + 0.7 * dy - 0.22 * dx);
    }
  }
  function drawChart() {
    const { context, width, height } = fitted(chart, 0.4);
    const { bound, jsd } = scene.history;
    const onFrames = frames.filter((frame) => frame.logQ).map((frame) => [frame.epoch, frame.jsd?.value ?? jensenShannon(logP, frame.logQ, area)]);
    const last = Math.max(1, ...frames.map((frame) => frame.epoch));
    const { toX, toY } = axes(context, { left: 44, top: 20, right: width - 8, bottom: height - 40, x: [0, last], y: [0, Math.LN2 * 1.05], labelX: "epoch", labelY: "nats", countY: 4 });
    context.lineWidth = 2;
    context.strokeStyle = themed("warm");
    curve(context, bound.map(([epoch, value]) => [epoch, Math.max(0, value)]), toX, toY);
    context.strokeStyle = themed("good");
    curve(context, jsd.length > 1 ? jsd : onFrames, toX, toY);
    context.fillStyle = themed("good");
    for (const [epoch, value] of onFrames) {
      context.beginPath();
      context.arc(toX(epoch), toY(value), 3.5, 0, 7);
      context.fill();
    }
    context.strokeStyle = themed("ink");
    context.lineWidth = 1;
    line(context, toX(frames[state.at].epoch), 20, toX(frames[state.at].epoch), height - 40);
  }

  const legend = element("div", { class: "legend" },
    element("span", {}, swatch("var(--ink)"), "real"), element("span", {}, swatch("var(--good)"), "generated"),
    element("span", {}, swatch("var(--cool)"), "D near 1: “real”"), element("span", {}, swatch("var(--warm)"), "D near 0: “generated”"));
  return {
    element: element("div", {},
      element("p", { class: "lead" }, element("b", {}, `GAN on ${scene.recipe.data}`), ` with the ${scene.loss} loss. The left picture has the discriminator of the game, the right one the best discriminator D* = p/(p + q) for the same generator; arrows show where each would push the generated points.`),
      noteList(scene.notes),
      card("Training", null, element("div", { class: "row" }, play, element("div", { style: "flex:1;min-width:14rem" }, scrub),
        toggle("arrows", true, (on) => { state.arrows = on; show(state.at); }), toggle("real points", true, (on) => { state.real = on; show(state.at); })), legend),
      element("div", { class: "grid toy", style: "margin:1rem 0" }, card("D, the discriminator of the game", "As training has it at this moment; with a relativistic or Wasserstein loss only its differences have a meaning.", canvases[0]),
        card("D*, the best discriminator", "Of known densities, as means over the cells of the picture; where the generator’s is a histogram, an estimate.", canvases[1])),
      element("div", { class: "grid toy" },
        card("How far apart are data and generator?", null, element("div", { class: "numbers" }, numbers.jsd, numbers.bound, numbers.modes, numbers.quality),
          chart, element("div", { class: "legend" }, element("span", {}, swatch("var(--good)"), "JSD"), element("span", {}, swatch("var(--warm)"), "bound from D"))),
        diracCard())),
    start: () => show(state.at),
    stop,
  };
}

/** A live Dirac-GAN: vector field, eigenvalues and orbit. */
export function diracCard() {
  const settings = { loss: "nonsaturating", gamma: 0, generatorRate: 0.1, discriminatorRate: 0.1, alternating: false };
  let orbit = [[1, 0]];
  let timer = null;
  const canvas = element("canvas", { class: "wide", tabindex: 0, role: "application", "aria-label": "Dirac-GAN: press to start an orbit there; arrow keys move its start." });
  const request = redrawn(canvas, draw);
  const eigenvalues = quantity("eigenvalues of the field at 0", "Of the Jacobian of the two players’ gradient steps at the equilibrium θ = ψ = 0, in closed form: −η_D γ/2 ± √(η_D² γ²/4 − η_G η_D f′(0)²). Negative real parts draw the game in.");
  const radius = quantity("size of a step’s eigenvalues", "The largest absolute eigenvalue of one step of the game at the equilibrium. Below 1 it converges, above 1 it diverges, whatever the continuous field does.");
  const distance = quantity("distance after 400 steps", "Of the orbit from the equilibrium, computed step by step.");
  function restart(start) {
    orbit = [start];
    clearInterval(timer);
    timer = setInterval(() => {
      for (let k = 0; k < 4 && orbit.length < 401; k++) orbit.push(diracStep(settings, orbit.at(-1)));
      if (orbit.length >= 401) clearInterval(timer);
      if (!canvas.isConnected) clearInterval(timer);
      numbersShown();
      request();
    }, 30);
    numbersShown();
    request();
  }
  function numbersShown() {
    const [first, second] = diracEigenvalues(settings);
    eigenvalues.set({ value: first[0], kind: "exact", places: 3, unit: first[1] ? `± ${written(first[1], 3)} i` : `and ${written(second[0], 3)}` });
    radius.set({ value: diracStepRadius(settings), kind: "numerical", places: 4 });
    if (orbit.length >= 401) distance.set({ value: Math.hypot(...orbit.at(-1)), kind: "numerical", places: 4 });
    else distance.clear();
  }
  const changed = (key) => (value) => { settings[key] = value; restart(orbit[0]); };
  function draw() {
    const { context, width, height } = fitted(canvas, 0.72);
    const [left, top, right, bottom] = [34, 18, width - 8, height - 38];
    const reach = 2;
    const across = (reach * (right - left)) / (bottom - top);
    const { toX, toY } = axes(context, { left, top, right, bottom, x: [-across, across], y: [-reach, reach], labelX: "θ, the generator’s point", labelY: "ψ, the slope of D" });
    Object.assign(canvas, { toState: (x, y) => [((x - left) / (right - left)) * 2 * across - across, reach - ((y - top) / (bottom - top)) * 2 * reach] });
    context.save();
    context.beginPath();
    context.rect(left, top, right - left, bottom - top);
    context.clip();
    context.strokeStyle = themed("faint");
    context.globalAlpha = 0.6;
    for (let i = -8; i <= 8; i++) {
      for (let j = -6; j <= 6; j++) {
        const at = [(i / 8) * across, (j / 6) * reach];
        const [u, v] = diracField(settings, at);
        const size = Math.hypot(u, v);
        if (size < 1e-9) continue;
        const length = 12 * Math.min(1, 0.35 + size / 0.2);
        const [x, y, dx, dy] = [toX(at[0]), toY(at[1]), (u / size) * length, (-v / size) * length];
        line(context, x - dx / 2, y - dy / 2, x + dx / 2, y + dy / 2);
        line(context, x + dx / 2, y + dy / 2, x + dx / 5 - dy / 5, y + dy / 5 + dx / 5);
        line(context, x + dx / 2, y + dy / 2, x + dx / 5 + dy / 5, y + dy / 5 - dx / 5);
      }
    }
    context.globalAlpha = 1;
    context.strokeStyle = themed("warm");
    context.lineWidth = 1.8;
    curve(context, orbit, toX, toY);
    context.fillStyle = themed("warm");
    for (const [state, size] of [[orbit[0], 4], [orbit.at(-1), 6]]) {
      context.beginPath();
      context.arc(toX(state[0]), toY(state[1]), size, 0, 7);
      context.fill();
    }
    context.restore();
  }
  canvas.addEventListener("pointerdown", (event) => {
    const bounds = canvas.getBoundingClientRect();
    restart(canvas.toState(event.clientX - bounds.left, event.clientY - bounds.top));
  });
  canvas.addEventListener("keydown", (event) => {
    const change = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
    if (!change) return;
    event.preventDefault();
    restart(orbit[0].map((u, i) => u + change[i]));
  });
  setTimeout(() => restart([1, 0]), 0);
  return card("A GAN of two numbers: the Dirac-GAN", "The data are a point at 0, the generator is a point θ, and D(x) = ψx. Press anywhere to start there.",
    element("div", { class: "row" },
      choice("loss", Object.entries(DIRAC_LOSSES).map(([key, loss]) => [key, loss.name]), settings.loss, changed("loss")),
      toggle("players take turns", false, changed("alternating"))),
    slider("penalty γ", { min: 0, max: 4, step: 0.05, value: 0 }, (u) => written(u, 2), changed("gamma")),
    slider("rate of G", { min: 0.01, max: 0.5, step: 0.01, value: 0.1 }, (u) => written(u, 2), changed("generatorRate")),
    slider("rate of D", { min: 0.01, max: 0.5, step: 0.01, value: 0.1 }, (u) => written(u, 2), changed("discriminatorRate")),
    canvas, element("div", { class: "numbers" }, eigenvalues, radius, distance));
}
