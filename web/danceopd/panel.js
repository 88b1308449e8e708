// The live panel of one Train node: state, progress, curves and images of its run, and buttons to stop and cancel it.

import { colourOf, drawChart, updateAt } from "./chart.js";
import { durationText, memoryText, numberText, queryText } from "./format.js";
import { sentence, t } from "./i18n.js";
import { addEvent, addHistory, copyOf, emptySeries, valueAt } from "./series.js";
import { STYLE } from "./style.js";

const HISTORY_INTERVAL = 3000; // ms, least time between two requests of the history
const RUNNING = ["opening", "training"];
const STATES = {
  opening: "Preparing", training: "Training", done: "Done", stopped: "Stopped and saved",
  cancelled: "Cancelled", failed: "Failed",
};

function createElement(tag, name = "", parent = null) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  parent?.append(element);
  return element;
}

export class Panel {
  // `client`: history(run, after), stop(id) and cancel(id) return promises; picture(url) returns the address of an image.
  constructor(client) {
    this.client = client;
    this.event = null;
    this.series = emptySeries();
    this.history = emptySeries(); // of the server's history, as far as it was asked for
    this.hovered = null;
    this.pending = ""; // "stop" or "cancel" from the click until the run has ended
    this.offline = false; // whether the connection to the server is lost
    this.#build();
    this.#render();
  }

  // Shows a status event of the run.
  update(event) {
    const newRun = event.run !== this.event?.run;
    if (!RUNNING.includes(event.state) || newRun) this.pending = "";
    this.event = event;
    if (newRun || (event.state === "training" && event.update < this.series.last)) {
      this.series = emptySeries();
      this.history = emptySeries();
    }
    const gap = event.update > 0 && event.state !== "opening" && addEvent(this.series, event);
    if (gap || (event.update > 0 && !RUNNING.includes(event.state))) this.#requestHistory();
    this.#render();
  }

  // Shows a fault that the server has no status of: the node did not run.
  failed(message) {
    const nothing = { run: "", update: 0, steps: 0, losses: {}, pictures: [] };
    this.update({ ...nothing, ...this.event, state: "failed", message, work: null });
  }

  // The run is not known any more.
  ended() {
    if (RUNNING.includes(this.event?.state)) {
      this.update({ ...this.event, state: "cancelled", message: t("The server has ended"), work: null });
    }
  }

  disconnected(offline) {
    this.offline = offline;
    this.#render();
  }

  // Replaces the series by the run's history: after a reload, or when events have skipped updates.
  // Limited in rate, and only what is not here yet is asked for, because the history of a long run is large.
  #requestHistory() {
    if (this.waiting) {
      this.outdated = true;
      return;
    }
    this.waiting = true;
    this.outdated = false;
    setTimeout(() => this.#fetchHistory(), 50);
    setTimeout(() => {
      this.waiting = false;
      if (this.outdated) this.#requestHistory();
    }, HISTORY_INTERVAL);
  }

  async #fetchHistory() {
    const { run } = this.event;
    const { history } = this;
    // From the last update on: its validation comes after it.
    for (let after = Math.max(0, history.last - 1); Number.isFinite(after);) {
      const page = await this.client.history(run, after).catch(() => null);
      if (!page || this.history !== history || this.event.run !== run || this.event.state === "opening") return;
      addHistory(history, page);
      after = page.next;
    }
    this.series = copyOf(history);
    addEvent(this.series, this.event);
    this.#render();
  }

  #build() {
    this.element = createElement("div", "danceopd");
    createElement("style", "", this.element).textContent = STYLE;
    const head = createElement("div", "danceopd-head", this.element);
    createElement("span", "danceopd-dot", head);
    this.state = createElement("span", "danceopd-state", head);
    this.state.setAttribute("role", "status");
    this.message = createElement("span", "danceopd-message", head);
    this.count = createElement("span", "danceopd-count", head);
    this.bar = createElement("div", "danceopd-bar", this.element);
    this.bar.setAttribute("role", "progressbar");
    this.progress = createElement("div", "", this.bar);
    const plot = createElement("div", "danceopd-plot", this.element);
    this.canvas = createElement("canvas", "", plot);
    this.canvas.setAttribute("role", "img");
    this.hint = createElement("div", "danceopd-empty", plot);
    this.routes = createElement("div", "danceopd-routes", this.element);
    this.facts = createElement("div", "danceopd-facts", this.element);
    this.query = createElement("div", "danceopd-query", this.element);
    this.earlier = createElement("div", "danceopd-earlier", this.element);
    this.pictures = createElement("div", "danceopd-pictures", this.element);
    const buttons = createElement("div", "danceopd-buttons", this.element);
    this.stop = this.#button(buttons, "stop");
    this.cancel = this.#button(buttons, "cancel");
    this.canvas.addEventListener("pointermove", ({ offsetX }) => this.#hover(offsetX));
    this.canvas.addEventListener("pointerleave", () => this.#hover(null));
    new ResizeObserver(() => this.#draw()).observe(this.canvas);
  }

  #button(parent, action) {
    const button = createElement("button", "", parent);
    button.type = "button";
    button.addEventListener("click", async () => {
      this.pending = action;
      this.#render();
      const accepted = await this.client[action](this.event.node).catch(() => false);
      if (!accepted) this.pending = "";
      this.#render();
    });
    return button;
  }

  #hover(x) {
    this.hovered = x === null || !this.series.last ? null : updateAt(this.canvas, this.series, this.event?.steps, x);
    this.#draw();
    this.#renderRoutes();
  }

  #draw() {
    cancelAnimationFrame(this.drawing);
    this.drawing = requestAnimationFrame(() => drawChart(this.canvas, this.series, this.event?.steps, this.hovered));
  }

  #render() {
    const event = this.event;
    const running = RUNNING.includes(event?.state);
    const lost = running && this.offline;
    const work = running ? event.work : null;
    const [done, total] = work?.total ? [work.done, work.total] : [event?.update ?? 0, event?.steps ?? 0];
    this.element.dataset.state = lost ? "lost" : event?.state ?? "idle";
    this.element.dataset.warned = Boolean(event?.warning);
    this.state.textContent = t(lost ? "Connection lost" : event ? STATES[event.state] : "Not run yet");
    this.message.textContent = this.message.title = this.#messageText(work);
    this.count.textContent = done || work?.total ? `${done} / ${total}` : "";
    this.progress.style.width = `${total ? (100 * done) / total : 0}%`;
    this.bar.setAttribute("aria-valuenow", done);
    this.bar.setAttribute("aria-valuemax", total);
    this.hint.textContent = this.#hintText();
    this.canvas.setAttribute("aria-label", t("Loss and validation error of each route over the updates"));
    this.facts.replaceChildren(...this.#factElements(running, work));
    const distribution = queryText(event?.asked ?? []);
    this.query.textContent = this.query.title = distribution && `${t("queries at sigma")} ${distribution}`;
    const earlier = !running && event?.earlier;
    this.earlier.textContent = this.earlier.title = earlier ? `${t("Earlier LoRA of this name")}: ${earlier}` : "";
    this.#renderRoutes();
    this.#renderPictures();
    this.stop.textContent = t(this.pending === "stop" ? "Stopping …" : "Stop and save");
    this.stop.title = t("Ends training after the current update; the workflow continues with the trained LoRA");
    this.stop.disabled = event?.state !== "training" || lost || this.pending !== "";
    this.cancel.textContent = t(this.pending === "cancel" ? "Cancelling …" : "Cancel");
    this.cancel.title = t("Cancels the whole prompt; the LoRA and a checkpoint are saved");
    this.cancel.disabled = !running || lost || this.pending === "cancel";
    this.#draw();
  }

  #messageText(work) {
    if (work) return sentence(work.what);
    const texts = [this.event?.message, this.event?.warning].filter(Boolean);
    return texts.map(sentence).join(". ");
  }

  #hintText() {
    if (this.series.last) return "";
    if (this.event) return this.event.state === "training" && !this.event.work ? t("Running the first update") : "";
    return t("Press Run to see the loss, validation error and validation images of each route");
  }

  #factElements(running, work) {
    const event = this.event;
    const facts = [];
    if (work) {
      facts.push(`${t("for")} ${durationText(work.seconds)}`);
      if (work.eta !== null) facts.push(`${t("estimated time left")} ${durationText(work.eta)}`);
    }
    if (event?.update && event.rate > 0) {
      const slow = event.rate < 1;
      facts.push(`${numberText(slow ? 1 / event.rate : event.rate)} ${t(slow ? "s/update" : "updates/s")}`);
    }
    if (!work && running && event.update && event.eta !== null) facts.push(`${t("estimated time left")} ${durationText(event.eta)}`);
    if (event?.update && event.memory_mb > 0) facts.push(`${t("memory")} ${memoryText(event.memory_mb)}`);
    return facts.map((fact) => {
      const element = createElement("span");
      element.textContent = fact;
      return element;
    });
  }

  #renderRoutes() {
    const update = this.hovered ?? Infinity;
    const rows = [...this.series.routes].map(([name, { loss, error }], index) => {
      const [colour, label, first, second] = ["b", "span", "i", "i"].map((tag) => createElement(tag));
      colour.style.background = colourOf(index);
      const share = this.event?.shares?.[name];
      label.textContent = label.title = share === undefined ? name : `${Math.round(100 * share)} % ${name}`;
      first.textContent = `${t("loss")} ${numberText(valueAt(loss, update))}`;
      second.textContent = error.length ? `${t("val. error")} ${numberText(valueAt(error, update))}` : "";
      return [colour, label, first, second];
    });
    this.routes.replaceChildren(...rows.flat());
  }

  #renderPictures() {
    const pictures = this.event?.pictures ?? [];
    const key = pictures.map((picture) => picture.url).join("\n");
    if (key === this.picturesKey) return;
    this.picturesKey = key;
    this.pictures.replaceChildren(...pictures.map(({ prompt, url }) => {
      const link = createElement("a");
      link.href = this.client.picture(url);
      link.target = "_blank";
      const image = createElement("img", "", link);
      image.alt = image.title = prompt;
      image.addEventListener("load", () => image.classList.toggle("small", image.naturalHeight <= 128));
      image.src = link.href;
      return link;
    }));
  }
}
