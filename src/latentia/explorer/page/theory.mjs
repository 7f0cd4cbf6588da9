// The statements of the sheet, with formulas, both sides and errata; and three of them to play with.
import { written } from "./numbers.mjs";
import { sigmoid } from "./network.mjs";
import { logNormal, normalJensenShannon, normalKL, uniformDivergences } from "./toys.mjs";
import { axes, curve, fitted, line, themed } from "./drawing.mjs";
import { card, element, quantity, redrawn, slider } from "./parts.mjs";
import { swatch } from "./plane.mjs";
import { diracCard } from "./toy.mjs";

export function theoryTab(theory) {
  const chapters = theory.chapters.filter((chapter) => chapter.statements.length).map((chapter) => [
    element("h3", { class: "chapter" }, chapter.title),
    element("div", { class: "cards" }, ...chapter.statements.map(statementCard)),
  ]);
  return {
    element: element("div", {},
      element("p", { class: "lead" }, "Every statement of the sheet is a check that runs: ", element("b", {}, "both sides are computed"), `, not quoted. The values were computed with version ${theory.version}, seed ${theory.seed}; \`latentia verify\` computes them again. First three to play with:`),
      element("div", { class: "cards" }, uniformsCard(), gaussiansCard(), diracCard()),
      ...chapters.flat()),
    start: () => {},
  };
}

/** MathML that Python made, as elements: nothing but MathML is taken over. */
function formula(markup) {
  const parsed = new DOMParser().parseFromString(markup, "text/html").body.firstElementChild;
  const space = "http://www.w3.org/1998/Math/MathML";
  const copy = (node) => {
    if (node.nodeType === Node.TEXT_NODE) return document.createTextNode(node.textContent);
    if (node.namespaceURI !== space) return document.createTextNode("");
    const made = document.createElementNS(space, node.localName);
    for (const { name, value } of node.attributes) if (!name.startsWith("on") && !name.includes("href")) made.setAttribute(name, value);
    made.append(...Array.from(node.childNodes, copy));
    return made;
  };
  return element("div", { class: "formula", tabindex: 0, role: "group", "aria-label": "formula" }, parsed && copy(parsed));
}

function statementCard(statement) {
  const erratum = statement.erratum;
  const made = element("article", { class: "card statement" },
    element("p", {}, element("span", { class: "item" }, statement.item), statement.words),
    formula(statement.formula),
    sides(statement.rows),
    element("p", { class: "hint small" }, `${statement.relations} relations checked. Source: ${statement.source}.`),
    erratum && element("details", { class: "erratum" },
      element("summary", {}, "Erratum of the sheet"),
      element("p", {}, "The sheet states"), formula(erratum.stated),
      element("p", {}, "and right is"), formula(erratum.right),
      element("p", {}, erratum.words),
      sides(erratum.rows)));
  return made;
}

function sides(rows) {
  return element("table", { class: "sides" }, element("tbody", {}, ...rows.map((row) =>
    element("tr", {},
      element("td", {}, row.name, row.note && element("div", { class: "faint small" }, row.note)),
      element("td", {}, `${row.left} ${row.sign} ${row.right}`, element("div", { class: "faint small" }, row.kind)),
      element("td", { class: row.holds ? "ok" : "no", "aria-label": row.holds ? "holds" : "does not hold" }, row.holds ? "✓" : "✗")))));
}

/** Item 3e: U[0, 1] against U[a, a + 1]. */
function uniformsCard() {
  let a = 0.5;
  const canvas = element("canvas", { class: "wide", role: "img", "aria-label": "Two uniform densities and their divergences against the shift" });
  const request = redrawn(canvas, draw);
  const numbers = {
    kl: quantity("KL(P, Q)", "+∞ as soon as P has mass where Q has none: for every shift but 0. The sheet calls it undefined; by convention it is +∞."),
    jsd: quantity("JSD(P, Q)", "min(a, 1) log 2: it stops at log 2 when the supports are apart, and its slope is 0 there. The generator gets no direction."),
    w1: quantity("W₁(P, Q)", "The mass is moved by a: W₁ = a, whose slope is 1 everywhere."),
  };
  const show = (value) => {
    a = value;
    const { kl, jsd, w1 } = uniformDivergences(a);
    numbers.kl.set({ value: kl, kind: "exact", unit: "nats" });
    numbers.jsd.set({ value: jsd, kind: "exact", places: 4, unit: "nats" });
    numbers.w1.set({ value: w1, kind: "exact", places: 2 });
    request();
  };
  function draw() {
    const { context, width, height } = fitted(canvas, 0.62);
    const middle = height * 0.38;
    const top = axes(context, { left: 34, top: 10, right: width - 8, bottom: middle - 22, x: [-0.2, 3.7], y: [0, 1.25], countY: 2 });
    for (const [from, color] of [[0, "ink"], [a, "warm"]]) {
      context.fillStyle = themed(color);
      context.globalAlpha = 0.3;
      context.fillRect(top.toX(from), top.toY(1), top.toX(1) - top.toX(0), top.toY(0) - top.toY(1));
      context.globalAlpha = 1;
      context.strokeStyle = themed(color);
      context.lineWidth = 2;
      context.strokeRect(top.toX(from), top.toY(1), top.toX(1) - top.toX(0), top.toY(0) - top.toY(1));
    }
    const { toX, toY } = axes(context, { left: 34, top: middle + 18, right: width - 8, bottom: height - 34, x: [0, 2.5], y: [0, 2.5], labelX: "shift a", countY: 4 });
    const shifts = Array.from({ length: 101 }, (_, k) => (2.5 * k) / 100);
    context.lineWidth = 2;
    for (const [key, color] of [["jsd", "cool"], ["w1", "good"]]) {
      context.strokeStyle = themed(color);
      curve(context, shifts.map((shift) => [shift, uniformDivergences(shift)[key]]), toX, toY);
      context.fillStyle = themed(color);
      context.beginPath();
      context.arc(toX(a), toY(uniformDivergences(a)[key]), 5, 0, 7);
      context.fill();
    }
    context.strokeStyle = themed("faint");
    context.lineWidth = 1;
    line(context, toX(a), middle + 18, toX(a), height - 34);
  }
  setTimeout(() => show(a), 0);
  return card("3e: three uniforms", "P is uniform on [0, 1], Q on [a, a + 1]. The sheet’s three are a = 0, ½ and 1.", slider("shift a", { min: 0, max: 2.5, step: 0.01, value: a }, (u) => written(u, 2), show), canvas,
    element("div", { class: "legend" }, element("span", {}, swatch("var(--cool)"), "JSD"), element("span", {}, swatch("var(--good)"), "W₁"), element("span", {}, "KL is +∞ for every a > 0")),
    element("div", { class: "numbers" }, numbers.kl, numbers.jsd, numbers.w1));
}

/** Items 1g and 3c, 3d: two Gaussians, D*, KL both ways and JSD. */
function gaussiansCard() {
  const p = { mean: 0, sigma: 1 };
  const q = { mean: 1.5, sigma: 0.7 };
  const canvas = element("canvas", { class: "wide", role: "img", "aria-label": "Two Gaussian densities and the best discriminator" });
  const request = redrawn(canvas, draw);
  const numbers = {
    forward: quantity("KL(P, Q)", "Of two Gaussians, in closed form. It is large where Q forgets a part of P."),
    backward: quantity("KL(Q, P)", "The other way round: large where Q puts mass that P has not. The two are not equal."),
    jsd: quantity("JSD(P, Q)", "By the trapezoid rule on 1 000 intervals; its error is the change from 500."),
    cost: quantity("C(D*) = log 4 − 2 JSD", "The least cost of the discriminator (3d): log 4 only if the two are the same."),
  };
  const show = () => {
    const jsd = normalJensenShannon(p, q);
    numbers.forward.set({ value: normalKL(p, q), kind: "exact", places: 4, unit: "nats" });
    numbers.backward.set({ value: normalKL(q, p), kind: "exact", places: 4, unit: "nats" });
    numbers.jsd.set({ ...jsd, kind: "numerical", places: 4, unit: "nats" });
    numbers.cost.set({ value: Math.log(4) - 2 * jsd.value, error: 2 * jsd.error, kind: "numerical", places: 4, unit: "nats" });
    request();
  };
  function draw() {
    const { context, width, height } = fitted(canvas, 0.5);
    const range = [-4, 6];
    const points = Array.from({ length: 301 }, (_, k) => range[0] + (k / 300) * (range[1] - range[0]));
    const densities = [[p, "ink"], [q, "warm"]].map(([g, color]) => [points.map((x) => [x, Math.exp(logNormal(x, g.mean, g.sigma))]), color]);
    const peak = Math.max(1, ...densities.flatMap(([pairs]) => pairs.map(([, y]) => y)));
    const { toX, toY } = axes(context, { left: 34, top: 10, right: width - 8, bottom: height - 24, x: range, y: [0, 1.05 * peak], countY: 4 });
    context.lineWidth = 2;
    for (const [pairs, color] of densities) {
      context.strokeStyle = themed(color);
      curve(context, pairs, toX, toY);
    }
    context.strokeStyle = themed("cool");
    context.setLineDash([6, 4]);
    curve(context, points.map((x) => [x, sigmoid(logNormal(x, p.mean, p.sigma) - logNormal(x, q.mean, q.sigma))]), toX, toY);
    context.setLineDash([]);
  }
  setTimeout(show, 0);
  return card("3c, 3d: the best discriminator", "P = N(0, 1) is the data, Q the generator; D* = p/(p + q) is dashed.",
    slider("mean of Q", { min: -3, max: 5, step: 0.05, value: q.mean }, (u) => written(u, 2), (u) => { q.mean = u; show(); }),
    slider("σ of Q", { min: 0.2, max: 3, step: 0.05, value: q.sigma }, (u) => written(u, 2), (u) => { q.sigma = u; show(); }),
    canvas, element("div", { class: "legend" }, element("span", {}, swatch("var(--ink)"), "p"), element("span", {}, swatch("var(--warm)"), "q"), element("span", {}, swatch("var(--cool)"), "D*")),
    element("div", { class: "numbers" }, numbers.forward, numbers.backward, numbers.jsd, numbers.cost));
}
