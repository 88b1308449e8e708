// The live panel of one Train node: what a run is doing, its curves, its pictures, and the two ways to end it.

import { colourOf, drawChart, updateAt } from "./chart.js";
import { addEvent, askedText, brief, duration, emptySeries, memory, seriesOf, valueAt } from "./series.js";
import { say } from "./words.js";

export const HEIGHT = 400;
const REST = 3000; // ms between two looks at the history
const RUNNING = ["opening", "training"];
const STATES = {
  opening: "Opening", training: "Training", done: "Done", stopped: "Stopped and saved",
  cancelled: "Cancelled", failed: "Failed",
};

const STYLE = `
.danceopd { --danceopd-line: color-mix(in srgb, currentColor 18%, transparent);
  display: flex; flex-direction: column; gap: 6px; min-height: ${HEIGHT}px; height: 100%; width: 100%; padding: 8px;
  box-sizing: border-box; overflow: hidden; border-radius: 8px;
  background: var(--component-node-widget-background, var(--comfy-input-bg, #222));
  color: var(--input-text, #ddd); font: 12px/1.35 Inter, system-ui, sans-serif; cursor: default; }
.danceopd > * { flex: none; }
.danceopd-head { display: flex; align-items: baseline; gap: 7px; white-space: nowrap; }
.danceopd-dot { width: 8px; height: 8px; border-radius: 50%; background: #8b8f98; flex: none; }
.danceopd[data-state=training] .danceopd-dot { background: #4c9be8; animation: danceopd-pulse 1.6s infinite; }
.danceopd[data-state=opening] .danceopd-dot { background: #c9a92c; animation: danceopd-pulse 1.6s infinite; }
.danceopd[data-state=done] .danceopd-dot, .danceopd[data-state=stopped] .danceopd-dot { background: #54b884; }
.danceopd[data-state=failed] .danceopd-dot { background: #dd5050; }
@keyframes danceopd-pulse { 50% { opacity: 0.35; } }
@media (prefers-reduced-motion: reduce) { .danceopd-dot { animation: none !important; } }
.danceopd-state { font-weight: 600; }
.danceopd-message { overflow: hidden; text-overflow: ellipsis; opacity: 0.75; min-width: 0; flex: 1; }
.danceopd[data-state=failed] .danceopd-head { flex-wrap: wrap; white-space: normal; }
.danceopd[data-state=failed] .danceopd-count { margin-left: auto; }
.danceopd[data-state=failed] .danceopd-message { order: 1; flex: 1 0 100%; max-height: 5.5em;
  overflow-y: auto; opacity: 1; }
.danceopd-count { font-variant-numeric: tabular-nums; opacity: 0.85; }
.danceopd-bar { height: 4px; border-radius: 2px; background: var(--danceopd-line); overflow: hidden; }
.danceopd-bar > div { height: 100%; width: 0; background: #4c9be8; }
.danceopd[data-state=done] .danceopd-bar > div,
.danceopd[data-state=stopped] .danceopd-bar > div { background: #54b884; }
.danceopd[data-state=cancelled] .danceopd-bar > div { background: #8b8f98; }
.danceopd[data-state=failed] .danceopd-bar > div { background: #dd5050; }
.danceopd-plot { flex: 1 1 0; min-height: 150px; position: relative; }
.danceopd-plot > canvas { position: absolute; inset: 0; width: 100%; height: 100%; }
.danceopd-empty { position: absolute; inset: 0; display: flex; align-items: center; justify-content: center;
  padding: 0 28px; text-align: center; opacity: 0.65; pointer-events: none; }
.danceopd-routes { display: grid; grid-template-columns: auto minmax(0, 1fr) auto auto; column-gap: 8px;
  font-size: 11px; max-height: 62px; overflow-y: auto; font-variant-numeric: tabular-nums; }
.danceopd-routes > b { width: 10px; height: 3px; border-radius: 2px; align-self: center; }
.danceopd-routes > span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.danceopd-routes > i { font-style: normal; opacity: 0.8; text-align: right; }
.danceopd-facts { display: flex; gap: 14px; font-size: 11px; opacity: 0.85; font-variant-numeric: tabular-nums; }
.danceopd-asked { font-size: 11px; max-height: 2.7em; overflow: hidden; opacity: 0.7;
  font-variant-numeric: tabular-nums; }
.danceopd-asked:empty, .danceopd-facts:empty, .danceopd-routes:empty, .danceopd-pictures:empty { display: none; }
.danceopd-pictures { display: flex; gap: 4px; overflow-x: auto; }
.danceopd-pictures > a { flex: none; line-height: 0; border-radius: 4px; overflow: hidden; }
.danceopd-pictures img { height: 64px; min-width: 40px; background: var(--danceopd-line); }
.danceopd-pictures img.small { image-rendering: pixelated; }
.danceopd-buttons { display: flex; gap: 6px; }
.danceopd-buttons > button { flex: 1; padding: 5px 8px; border: 1px solid var(--danceopd-line); border-radius: 6px;
  background: transparent; color: inherit; font: inherit; cursor: pointer; }
.danceopd-buttons > button:hover:enabled { background: var(--danceopd-line); }
.danceopd-buttons > button:focus-visible { outline: 2px solid #4c9be8; outline-offset: 1px; }
.danceopd-buttons > button:disabled { opacity: 0.4; cursor: default; }
`;

function make(tag, name = "", parent = null) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  parent?.append(element);
  return element;
}

export class Panel {
  // `calls`: history(run), stop(id), cancel(id), each a promise, and picture(url), the address of a run's picture.
  constructor(calls) {
    this.calls = calls;
    this.event = null;
    this.series = emptySeries();
    this.at = null;
    this.asked = "";
    this.#build();
    this.#show();
  }

  // The run that this node tells of goes on, or has ended.
  take(event) {
    const anew = event.run !== this.event?.run;
    if (!RUNNING.includes(event.state) || anew) this.asked = "";
    this.event = event;
    if (anew || (event.state === "training" && event.update < this.series.last)) this.series = emptySeries();
    const missed = event.update > 0 && event.state !== "opening" && addEvent(this.series, event);
    if (missed || (event.update > 0 && !RUNNING.includes(event.state))) this.#catchUp();
    this.#show();
  }

  // The curves as the run's folder has them: after a reload, or when events were too few to hold every update.
  // Not more than once in a while: a long history is much to send.
  #catchUp() {
    if (this.resting) {
      this.behind = true;
      return;
    }
    this.resting = true;
    this.behind = false;
    setTimeout(() => this.#fetchHistory(), 50);
    setTimeout(() => {
      this.resting = false;
      if (this.behind) this.#catchUp();
    }, REST);
  }

  async #fetchHistory() {
    const { run } = this.event;
    const history = await this.calls.history(run).catch(() => null);
    if (!history || this.event.run !== run || this.event.state === "opening") return;
    this.series = seriesOf(history);
    addEvent(this.series, this.event);
    this.#show();
  }

  #build() {
    this.element = make("div", "danceopd");
    make("style", "", this.element).textContent = STYLE;
    const head = make("div", "danceopd-head", this.element);
    make("span", "danceopd-dot", head);
    this.state = make("span", "danceopd-state", head);
    this.state.setAttribute("role", "status");
    this.message = make("span", "danceopd-message", head);
    this.count = make("span", "danceopd-count", head);
    this.bar = make("div", "danceopd-bar", this.element);
    this.bar.setAttribute("role", "progressbar");
    this.filled = make("div", "", this.bar);
    const plot = make("div", "danceopd-plot", this.element);
    this.canvas = make("canvas", "", plot);
    this.canvas.setAttribute("role", "img");
    this.empty = make("div", "danceopd-empty", plot);
    this.routes = make("div", "danceopd-routes", this.element);
    this.facts = make("div", "danceopd-facts", this.element);
    this.where = make("div", "danceopd-asked", this.element);
    this.pictures = make("div", "danceopd-pictures", this.element);
    const buttons = make("div", "danceopd-buttons", this.element);
    this.stop = this.#button(buttons, "stop");
    this.cancel = this.#button(buttons, "cancel");
    this.canvas.addEventListener("pointermove", ({ offsetX }) => this.#point(offsetX));
    this.canvas.addEventListener("pointerleave", () => this.#point(null));
    new ResizeObserver(() => this.#draw()).observe(this.canvas);
  }

  #button(parent, kind) {
    const button = make("button", "", parent);
    button.type = "button";
    button.addEventListener("click", async () => {
      this.asked = kind;
      this.#show();
      const heard = await this.calls[kind](this.event.node).catch(() => false);
      if (!heard) this.asked = "";
      this.#show();
    });
    return button;
  }

  #point(x) {
    this.at = x === null || !this.series.last ? null : updateAt(this.canvas, this.series, this.event?.steps, x);
    this.#draw();
    this.#showRoutes();
  }

  #draw() {
    cancelAnimationFrame(this.drawing);
    this.drawing = requestAnimationFrame(() => drawChart(this.canvas, this.series, this.event?.steps, this.at));
  }

  // Everything again, from what is known.
  #show() {
    const event = this.event;
    const running = RUNNING.includes(event?.state);
    this.element.dataset.state = event?.state ?? "idle";
    this.state.textContent = say(event ? STATES[event.state] : "Not run yet");
    this.message.textContent = this.message.title = event?.message ?? "";
    this.count.textContent = event?.update ? `${event.update} / ${event.steps}` : "";
    this.filled.style.width = `${event?.steps ? (100 * event.update) / event.steps : 0}%`;
    this.bar.setAttribute("aria-valuenow", event?.update ?? 0);
    this.bar.setAttribute("aria-valuemax", event?.steps ?? 0);
    this.empty.textContent = this.#hint();
    this.canvas.setAttribute("aria-label", say("Loss and validation error of every route over the updates"));
    this.facts.replaceChildren(...this.#facts(running));
    const where = askedText(event?.asked ?? []);
    this.where.textContent = this.where.title = where && `${say("asks at sigma")} ${where}`;
    this.#showRoutes();
    this.#showPictures();
    this.stop.textContent = say(this.asked === "stop" ? "Stopping …" : "Stop and save");
    this.stop.title = say("Ends the training after this update; the graph goes on with what is learned");
    this.stop.disabled = event?.state !== "training" || this.asked !== "";
    this.cancel.textContent = say(this.asked === "cancel" ? "Cancelling …" : "Cancel");
    this.cancel.title = say("Ends the whole prompt; the LoRA and the state are saved");
    this.cancel.disabled = !running || this.asked === "cancel";
    this.#draw();
  }

  #hint() {
    if (this.series.last) return "";
    if (this.event) return this.event.state === "training" ? say("The first update is being made") : "";
    return say("Press Run: the loss of every route, its validation error and the pictures appear here");
  }

  #facts(running) {
    const event = this.event;
    if (!event?.update) return [];
    const facts = [];
    if (event.rate > 0) {
      const slow = event.rate < 1;
      facts.push(`${brief(slow ? 1 / event.rate : event.rate)} ${say(slow ? "s/update" : "updates/s")}`);
    }
    if (running && event.eta !== null) facts.push(`${say("left")} ${duration(event.eta)}`);
    if (event.memory_mb > 0) facts.push(`${say("memory")} ${memory(event.memory_mb)}`);
    return facts.map((fact) => {
      const element = make("span");
      element.textContent = fact;
      return element;
    });
  }

  #showRoutes() {
    const at = this.at ?? Infinity;
    const rows = [...this.series.routes].map(([name, { loss, error }], number) => {
      const [colour, label, first, second] = [make("b"), make("span"), make("i"), make("i")];
      colour.style.background = colourOf(number);
      label.textContent = label.title = name;
      first.textContent = `${say("loss")} ${brief(valueAt(loss, at))}`;
      second.textContent = error.length ? `${say("error")} ${brief(valueAt(error, at))}` : "";
      return [colour, label, first, second];
    });
    this.routes.replaceChildren(...rows.flat());
  }

  #showPictures() {
    const shown = this.event?.pictures ?? [];
    const key = shown.map((picture) => picture.url).join("\n");
    if (key === this.picturesKey) return;
    this.picturesKey = key;
    this.pictures.replaceChildren(...shown.map(({ prompt, url }) => {
      const link = make("a");
      link.href = this.calls.picture(url);
      link.target = "_blank";
      const image = make("img", "", link);
      image.alt = image.title = prompt;
      image.addEventListener("load", () => image.classList.toggle("small", image.naturalHeight <= 128));
      image.src = link.href;
      return link;
    }));
  }
}
