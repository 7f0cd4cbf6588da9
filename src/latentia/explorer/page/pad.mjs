// The image x: chosen among test images, drawn by hand, or made otherwise; and the strip of test images.
import { binarized, centered, noise, upsideDown } from "./digits.mjs";
import { paint, themed } from "./drawing.mjs";
import { button, element, strip, tile } from "./parts.mjs";

const SIDE = 168; // pixels of the pad along a side
const LETTER = [[[40, 140], [84, 28], [128, 140]], [[58, 100], [110, 100]]]; // strokes of the letter A

/** The image that everything is said about. `changed(image, name, row)` is called with values in [0, 1], and for a
 * test image with its row. */
export function imagePad(scene, model, examples, changed) {
  const [channels, height, width] = scene.shape;
  const binary = model.likelihood?.binary ?? scene.images.binary;
  const how = !binary ? "none" : scene.binarize === "threshold" ? "threshold" : "static";
  const pad = element("canvas", {
    tabindex: 0,
    role: "application",
    "aria-label": "Drawing pad. Draw with mouse or finger; with keys: arrows move the pen, Space lifts or lowers it, Delete clears.",
  });
  Object.assign(pad, { width: SIDE, height: SIDE });
  const ink = element("canvas");
  Object.assign(ink, { width: SIDE, height: SIDE });
  const brush = ink.getContext("2d", { willReadFrequently: true });
  const seen = element("canvas", { class: "pixels", role: "img", "aria-label": "The image x as the model reads it" });
  const state = { image: null, name: "", pen: [SIDE / 2, SIDE / 2], down: false, keyed: false, strokes: 0 };

  function stroke(from, to) {
    brush.strokeStyle = "#fff";
    brush.lineWidth = SIDE * 0.085;
    brush.lineCap = brush.lineJoin = "round";
    brush.beginPath();
    brush.moveTo(...from);
    brush.lineTo(to[0] + 0.01, to[1]);
    brush.stroke();
    state.strokes++;
  }
  function show() {
    const context = pad.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, SIDE, SIDE);
    context.drawImage(ink, 0, 0);
    if (!state.strokes) {
      context.fillStyle = "#9aa0ab";
      context.font = "17px system-ui, sans-serif";
      context.textAlign = "center";
      context.fillText("draw here", SIDE / 2, SIDE / 2 + 5);
    }
    if (state.keyed) {
      context.strokeStyle = state.down ? themed("warm") : "#fff";
      context.lineWidth = 2;
      context.strokeRect(state.pen[0] - 5, state.pen[1] - 5, 10, 10);
    }
  }
  function wipe() {
    brush.clearRect(0, 0, SIDE, SIDE);
    state.strokes = 0;
    show();
  }
  function fromPad(name) {
    const { data } = brush.getImageData(0, 0, SIDE, SIDE);
    const gray = Float32Array.from({ length: SIDE * SIDE }, (_, k) => data[4 * k + 3] / 255);
    const one = binarized(centered(gray, SIDE, [height, width]), how);
    const image = new Float32Array(channels * height * width);
    for (let c = 0; c < channels; c++) image.set(one, c * height * width);
    set(image, name);
  }
  function set(image, name, row) {
    state.image = image;
    state.name = name;
    paint(seen, image, scene.shape);
    changed(image, name, row);
  }

  // Strokes by pointer: one new image a frame, however many events there are.
  let last = null;
  let waiting = false;
  const position = (event) => {
    const bounds = pad.getBoundingClientRect();
    return [event.clientX - bounds.left, event.clientY - bounds.top].map((u) => (u / bounds.width) * SIDE);
  };
  const later = () => {
    show();
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; fromPad("drawn by hand"); });
  };
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    state.keyed = false;
    test.select(-1);
    last = position(event);
    stroke(last, last);
    later();
  });
  pad.addEventListener("pointermove", (event) => {
    if (!last) return;
    const to = position(event);
    stroke(last, to);
    last = to;
    later();
  });
  for (const name of ["pointerup", "pointercancel"]) pad.addEventListener(name, () => { last = null; });
  pad.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-6, 0], ArrowRight: [6, 0], ArrowUp: [0, -6], ArrowDown: [0, 6] }[event.key];
    if (event.key === " ") {
      state.down = !state.down;
      if (state.down) stroke(state.pen, state.pen);
    } else if (event.key === "Delete" || event.key === "Backspace") wipe();
    else if (step) {
      const to = state.pen.map((u, axis) => Math.min(SIDE - 4, Math.max(4, u + step[axis])));
      if (state.down) stroke(state.pen, to);
      state.pen = to;
    } else return;
    event.preventDefault();
    state.keyed = true;
    if (state.strokes) later();
    else show();
  });

  const test = strip("Test images", examples.images, scene.shape, examples.names.map((name, k) => `test image ${k + 1}: ${name}`), (k) => {
    wipe();
    set(examples.images[k], examples.names[k] ? `test image, a ${examples.names[k]}` : "test image", k);
  });
  function preset(image, name) {
    wipe();
    test.select(-1);
    set(image, name);
  }
  const presets = element(
    "div",
    { class: "chips" },
    button("upside down", () => {
      const image = upsideDown(state.image, scene.shape);
      const name = state.name.endsWith(", upside down") ? state.name.replace(/, upside down$/, "") : `${state.name}, upside down`;
      wipe();
      set(image, name);
    }),
    button("noise", () => preset(noise(channels * height * width, binary, Math.floor(Math.random() * 1e9)), "noise")),
    button("a letter", () => {
      wipe();
      test.select(-1);
      for (const points of LETTER) for (let k = 1; k < points.length; k++) stroke(points[k - 1], points[k]);
      show();
      fromPad("the letter A");
    }),
    button("blank", () => preset(new Float32Array(channels * height * width), "a blank image")),
    button("clear the pad", () => { wipe(); pad.focus(); }),
  );
  show();
  return {
    padTile: tile(pad, "your strokes, centered as MNIST’s"),
    seenTile: (caption) => tile(seen, caption),
    test,
    presets,
    preset,
    image: () => state.image,
    name: () => state.name,
    choose: (k) => { test.select(k); wipe(); set(examples.images[k], examples.names[k] ? `test image, a ${examples.names[k]}` : "test image", k); },
  };
}
