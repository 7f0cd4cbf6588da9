// Parts of the page that every tab uses: elements, numbers with their kind, sliders, strips of images.
import { written } from "./numbers.mjs";
import { thumbnail } from "./drawing.mjs";

/** An element with properties and children; text is never read as HTML. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function card(title, hint, ...children) {
  return element("section", { class: "card" }, element("h2", {}, title), hint && element("p", { class: "hint" }, hint), ...children);
}

/** A number with its kind, which opens to say what it means. `set({ value, error, kind, places, unit })`. */
export function quantity(name, explanation) {
  const value = element("span", { class: "value" }, "–");
  const kind = element("span", { class: "kind" }, "");
  const made = element(
    "details",
    { class: "number" },
    element("summary", {}, element("span", { class: "name" }, name), element("span", { class: "reading" }, value, kind)),
    element("p", {}, explanation),
  );
  made.set = ({ value: number, error = null, kind: what, places = 2, unit = "" }) => {
    const sign = what === "lower bound" ? "≥ " : what === "upper bound" ? "≤ " : "";
    value.replaceChildren(sign + written(number, places));
    if (error !== null && Number.isFinite(error) && error > 0.5 * 10 ** -places) {
      value.append(element("span", { class: "error" }, ` ± ${written(error, places)}`));
    }
    if (unit) value.append(element("span", { class: "error" }, ` ${unit}`));
    kind.textContent = what;
    kind.className = `kind ${what.split(" ").pop()}`;
    made.dataset.value = number;
  };
  made.clear = () => {
    value.textContent = "…";
    kind.textContent = "";
    delete made.dataset.value;
  };
  return made;
}

/** A slider with its value written behind it. `write(value)` gives the text. */
export function slider(name, { min, max, step, value }, write, changed) {
  const output = element("output", {}, write(value));
  const input = element("input", { type: "range", min, max, step, value, "aria-label": name });
  input.value = value;
  input.addEventListener("input", () => {
    output.textContent = write(Number(input.value));
    changed(Number(input.value));
  });
  const made = element("label", { class: "slider" }, element("span", {}, name), input, output);
  made.input = input;
  made.move = (to) => {
    input.value = to;
    output.textContent = write(Number(input.value));
  };
  return made;
}

/** A checkbox in a chip. */
export function toggle(name, on, changed) {
  const input = element("input", { type: "checkbox" });
  input.checked = on;
  input.addEventListener("change", () => changed(input.checked));
  return element("label", { class: "chip" }, input, name);
}

export function button(name, pressed) {
  return element("button", { type: "button", class: "chip", onclick: pressed }, name);
}

export function choice(name, options, value, changed) {
  const made = element("select", { "aria-label": name });
  for (const [key, text] of options) made.append(element("option", { value: key }, text));
  made.value = value;
  made.addEventListener("change", () => changed(made.value));
  return element("label", { class: "row small" }, name, made);
}

/** One of several, as a row of buttons; `made.select(k)` chooses without calling `chosen`. */
export function options(name, texts, chosen) {
  const buttons = texts.map((text, k) => element("button", { type: "button", class: "chip", "aria-pressed": "false", onclick: () => { made.select(k); chosen(k); } }, text));
  const made = element("div", { class: "chips labels", role: "group", "aria-label": name }, element("span", { class: "hint" }, name), ...buttons);
  made.select = (k) => buttons.forEach((one, i) => one.setAttribute("aria-pressed", i === k ? "true" : "false"));
  made.select(0);
  return made;
}

/** A row of images to choose from, by mouse or by the arrow keys. */
export function strip(name, images, shape, labels, chosen) {
  const buttons = images.map((image, k) =>
    element(
      "button",
      { type: "button", role: "option", "aria-selected": "false", tabindex: k ? -1 : 0, onclick: () => select(k, true) },
      thumbnail(image, shape, labels[k]),
    ),
  );
  function select(k, announce) {
    buttons.forEach((made, i) => {
      made.setAttribute("aria-selected", i === k ? "true" : "false");
      made.tabIndex = i === Math.max(k, 0) ? 0 : -1;
    });
    if (announce) chosen(k);
  }
  const made = element("div", { class: "strip", role: "listbox", "aria-label": name, "aria-orientation": "horizontal" }, ...buttons);
  made.addEventListener("keydown", (event) => {
    const at = buttons.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (at < 0 || to === undefined || !buttons[to]) return;
    event.preventDefault();
    buttons[to].focus();
    select(to, true);
  });
  made.select = (k) => select(k, false);
  return made;
}

/** A picture with a caption. */
export function tile(canvas, caption) {
  return element("figure", { class: "tile" }, canvas, element("figcaption", {}, ...[caption].flat()));
}

/** What is missing or inexact, as a list; nothing for no notes. */
export function noteList(notes) {
  return notes.length ? element("ul", { class: "notes" }, ...notes.map((note) => element("li", {}, note))) : null;
}

/** Call `draw` when the element's size changes, and when the theme does. */
export function redrawn(canvas, draw) {
  let pending = false;
  const request = () => {
    if (pending) return;
    pending = true;
    requestAnimationFrame(() => {
      pending = false;
      if (canvas.isConnected && canvas.clientWidth) draw();
    });
  };
  new ResizeObserver(request).observe(canvas);
  document.addEventListener("themechange", request);
  return request;
}

/** The rows of an array of images as arrays. */
export function rowsOf(values, shape, scale = 1) {
  const size = shape.reduce((product, side) => product * side, 1);
  return Array.from({ length: values.length / size }, (_, k) =>
    Float32Array.from(values.subarray(k * size, (k + 1) * size), (u) => u * scale),
  );
}

/** The images of a reference: rows in [0, 1] with the names of their classes. */
export function imagesOf(reference, arrayFor, shape, classes) {
  const images = rowsOf(arrayFor(reference.pixels), shape, reference.binary ? 1 : 1 / 255);
  const labels = reference.labels ? arrayFor(reference.labels) : null;
  return { images, labels, names: images.map((_, k) => (labels ? classes[labels[k]] : "")) };
}

/** The images nearest to one, by the sum of squared differences of pixels. */
export function nearest(image, images, count) {
  return images
    .map((other, k) => ({ k, distance: other.reduce((sum, u, i) => sum + (u - image[i]) ** 2, 0) }))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, count);
}
