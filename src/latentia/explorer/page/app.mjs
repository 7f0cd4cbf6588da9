// The page: tabs, theme, the payload, and a worker for each VAE.
import { inflate } from "./numbers.mjs";
import { Engine } from "./engine.mjs";
import { element, noteList } from "./parts.mjs";
import { vaeTab } from "./vae.mjs";
import { toyTab } from "./toy.mjs";
import { ganTab } from "./gan.mjs";
import { codesTab } from "./codes.mjs";
import { theoryTab } from "./theory.mjs";

/** The tab of a run that the page cannot show: why, and where it is shown. */
function emptyTab(scene) {
  return { element: element("div", {}, noteList(scene.notes)), start: () => {} };
}

const TABS = { none: emptyTab, vae: vaeTab, codes: codesTab, toy: toyTab, gan: ganTab };

/** Something that answers questions about a scene's model: a worker, or the page itself where workers are refused. */
function workerOf(scene, buffer) {
  const listeners = [];
  const post = (message) => listeners.forEach((listen) => listen(message));
  const handle = { listen: (listener) => listeners.push(listener) };
  const { theory, ...plain } = scene;
  const small = { model: plain.model, shape: plain.shape, latent: plain.latent, box: plain.box, chart: plain.chart };
  try {
    const source = `${document.getElementById("mathematics").textContent}\nserve(self);`;
    const worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    worker.onmessage = ({ data }) => post(data);
    worker.postMessage({ kind: "load", scene: small, buffer });
    handle.ask = (question, image, label) => worker.postMessage({ kind: "ask", question, image, label });
  } catch {
    const engine = new Engine(small, buffer, post, () => new Promise((resolve) => setTimeout(resolve, 0)));
    handle.ask = (question, image, label) => engine.ask(question, image, label);
  }
  return handle;
}

function chooseTheme(name) {
  document.documentElement.dataset.theme = name;
  document.dispatchEvent(new Event("themechange"));
}

async function main() {
  const content = JSON.parse(document.getElementById("content").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  chooseTheme(dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => chooseTheme(dark.matches ? "dark" : "light"));
  document.getElementById("theme").addEventListener("click", () => chooseTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));

  const buffer = await inflate(document.getElementById("payload").textContent.trim());
  const workers = new Map();
  const page = {
    buffer,
    worker: (scene) => {
      if (!workers.has(scene)) workers.set(scene, workerOf(scene, buffer));
      return workers.get(scene);
    },
  };
  const entries = [
    ...content.scenes.map((scene) => ({ name: scene.name, make: () => TABS[scene.kind](scene, page) })),
    { name: "Theory", make: () => theoryTab(content.theory) },
  ];
  const place = document.getElementById("main");
  const tabs = document.getElementById("tabs");
  const made = new Map();
  let shown = null;

  function open(k) {
    if (shown) {
      shown.tab.stop?.();
      shown.tab.element.hidden = true;
    }
    buttons.forEach((button, i) => {
      button.setAttribute("aria-selected", i === k ? "true" : "false");
      button.tabIndex = i === k ? 0 : -1;
    });
    if (!made.has(k)) {
      const tab = entries[k].make();
      tab.element.id = `panel-${k}`;
      tab.element.setAttribute("role", "tabpanel");
      tab.element.setAttribute("aria-label", entries[k].name);
      place.append(tab.element);
      made.set(k, tab);
      tab.start();
    }
    shown = { tab: made.get(k) };
    shown.tab.element.hidden = false;
    document.documentElement.dataset.ready = "true";
  }
  const buttons = entries.map(({ name }, k) =>
    element("button", { type: "button", role: "tab", "aria-controls": `panel-${k}`, title: name, onclick: () => open(k) }, name));
  tabs.append(...buttons);
  tabs.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const at = buttons.indexOf(document.activeElement);
    if (at < 0 || !step) return;
    event.preventDefault();
    const to = (at + step + buttons.length) % buttons.length;
    buttons[to].focus();
    open(to);
  });
  document.getElementById("loading").remove();
  open(0);
}

main();
