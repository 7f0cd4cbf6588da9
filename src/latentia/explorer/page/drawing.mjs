// Canvases: sharp on every screen, in the colors of the theme.

/** Ten colors for classes, apart from each other for most eyes, readable on light and dark. */
export const CLASS_COLORS = [
  "#4e79c4", "#e08214", "#3aa66b", "#d6504d", "#8f6bc9", "#9a6b4a", "#dd6fb1", "#8a8f98", "#b7a422", "#22a9bd",
];

/** The value of a color of the style sheet. */
export function themed(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Fit a canvas's pixels to its size on the screen; returns its context, scaled to CSS pixels, and that size. */
export function fitted(canvas, ratio = 1) {
  const width = Math.max(1, canvas.clientWidth || 300);
  const height = Math.max(1, Math.round(width * ratio));
  const density = Math.min(3, window.devicePixelRatio || 1);
  canvas.style.height = `${height}px`;
  if (canvas.width !== Math.round(width * density)) {
    canvas.width = Math.round(width * density);
    canvas.height = Math.round(height * density);
  }
  const context = canvas.getContext("2d");
  context.setTransform(density, 0, 0, density, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** Put an image (values in [0, 1], shape [channels, height, width]) on a canvas of its size in pixels. */
export function paint(canvas, image, shape) {
  const [channels, height, width] = shape;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.putImageData(pictureOf(context, image, channels, height, width), 0, 0);
}

function pictureOf(context, image, channels, height, width) {
  const picture = context.createImageData(width, height);
  const area = width * height;
  for (let k = 0; k < area; k++) {
    for (let c = 0; c < 3; c++) picture.data[4 * k + c] = 255 * image[(channels === 3 ? c : 0) * area + k];
    picture.data[4 * k + 3] = 255;
  }
  return picture;
}

/** A small canvas with an image. */
export function thumbnail(image, shape, label) {
  const canvas = document.createElement("canvas");
  canvas.className = "pixels";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  paint(canvas, image, shape);
  return canvas;
}

/** A field of numbers as a picture: `color(value)` gives [red, green, blue, alpha]; rows run upwards. */
export function fieldPicture(values, columns, rows, color) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: columns, height: rows });
  const context = canvas.getContext("2d");
  const picture = context.createImageData(columns, rows);
  for (let k = 0; k < columns * rows; k++) {
    const [column, row] = [k % columns, Math.floor(k / columns)];
    const at = 4 * ((rows - 1 - row) * columns + column);
    const [red, green, blue, alpha] = color(values[k]);
    picture.data.set([red, green, blue, alpha], at);
  }
  context.putImageData(picture, 0, 0);
  return canvas;
}

/** The numbers of a color of the form #rrggbb. */
export function parts(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

/** A color between two, at a share from 0 to 1. */
export function mixed(a, b, share) {
  return parts(a).map((value, i) => Math.round(value + (parts(b)[i] - value) * share));
}

/** An ellipse of a Gaussian at `sigmas` standard deviations; `toX` and `toY` map z to the canvas. */
export function ellipse(context, q, sigmas, toX, toY) {
  context.beginPath();
  for (let k = 0; k <= 72; k++) {
    const angle = (2 * Math.PI * k) / 72;
    const [a, b] = [sigmas * Math.cos(angle), sigmas * Math.sin(angle)];
    const x = q.mean[0] + q.factor[0][0] * a + q.factor[0][1] * b;
    const y = q.mean[1] + q.factor[1][0] * a + q.factor[1][1] * b;
    context.lineTo(toX(x), toY(y));
  }
  context.closePath();
  context.stroke();
}

/** Round numbers between two ends, about `count` of them. */
export function ticks(low, high, count = 5) {
  if (count <= 0) return { found: [], places: 0 };
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * power).find((size) => size >= raw) ?? raw;
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high + 1e-12; k++) found.push(k * step);
  return { found, places: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

/** Axes of a chart with labels; returns the maps from values to the canvas. */
export function axes(context, { left, top, right, bottom, x, y, labelX = "", labelY = "", countX = 5, countY = 5 }) {
  const toX = (value) => left + ((value - x[0]) / (x[1] - x[0])) * (right - left);
  const toY = (value) => bottom - ((value - y[0]) / (y[1] - y[0])) * (bottom - top);
  context.font = "12px system-ui, sans-serif";
  context.lineWidth = 1;
  context.fillStyle = themed("faint");
  context.strokeStyle = themed("line");
  context.textBaseline = "middle";
  context.textAlign = "right";
  const vertical = ticks(...y, countY);
  for (const value of vertical.found) {
    line(context, left, toY(value), right, toY(value));
    context.fillText(value.toFixed(vertical.places).replace("-", "−"), left - 6, toY(value));
  }
  context.textAlign = "center";
  context.textBaseline = "top";
  const horizontal = ticks(...x, countX);
  for (const value of horizontal.found) {
    context.fillText(value.toFixed(horizontal.places).replace("-", "−"), toX(value), bottom + 5);
  }
  context.textAlign = "right";
  if (labelX) context.fillText(labelX, right, bottom + 19);
  context.textAlign = "left";
  context.textBaseline = "bottom";
  if (labelY) context.fillText(labelY, 4, top - 5);
  return { toX, toY };
}

export function line(context, x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}

/** A polyline through [x, y] pairs. */
export function curve(context, points, toX, toY) {
  context.beginPath();
  for (const [x, y] of points) context.lineTo(toX(x), toY(y));
  context.stroke();
}
