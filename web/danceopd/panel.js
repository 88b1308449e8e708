// A view of one run: state, progress, chart, routes, pictures over time, and what can be done. In its node, or wide.

import { drawChart, updateAt } from "./chart.js";
import { createButton, createElement } from "./elements.js";
import { EndCard } from "./end_card.js";
import { sentence, stateText, t } from "./i18n.js";
import { earlierText, factTexts, healthText, hintText, messageText, queriesText, reasonText, routeRows } from "./panel_texts.js";
import { verdictText } from "./reports.js";
import { Strip } from "./strip.js";
import { STYLE } from "./style.js";
import { STRIP_STYLE } from "./style_strip.js";

export class Panel {
  // `actions`: `addLora(file)` and `widen()`, each where it can be done. `title`: of a wide view, that of the node.
  constructor(run, actions, title = "") {
    this.run = run;
    this.actions = actions;
    this.hovered = null;
    this.#build(title);
    this.unlisten = run.listen(() => this.#render());
  }

  dispose() {
    this.unlisten();
    this.observer.disconnect();
    this.element.remove();
  }

  #build(title) {
    const wide = Boolean(title);
    this.element = createElement("div", wide ? "danceopd danceopd-wide" : "danceopd");
    createElement("style", "", this.element).textContent = STYLE + STRIP_STYLE;
    const side = createElement("div", "danceopd-side", this.element);
    if (wide) createElement("div", "danceopd-title", side, title);
    const head = createElement("div", "danceopd-head", side);
    createElement("span", "danceopd-dot", head);
    this.state = createElement("span", "danceopd-state", head);
    this.state.setAttribute("role", "status");
    this.message = createElement("span", "danceopd-message", head);
    this.count = createElement("span", "danceopd-count", head);
    if (!wide && this.actions.widen) {
      this.widen = createButton(head, "⤢", () => this.actions.widen(), "danceopd-widen");
      this.widen.title = t("Wide view in the bottom panel");
    }
    this.bar = createElement("div", "danceopd-bar", side);
    this.bar.setAttribute("role", "progressbar");
    this.progress = createElement("div", "", this.bar);
    this.routes = createElement("div", "danceopd-routes", side);
    this.facts = createElement("div", "danceopd-facts", side);
    this.query = createElement("div", "danceopd-query", side);
    this.earlier = createElement("div", "danceopd-earlier", side);
    this.buttons = createElement("div", "danceopd-buttons danceopd-running", side);
    this.stop = createButton(this.buttons, "", () => this.run.act("stop"));
    this.cancel = createButton(this.buttons, "", () => this.run.act("cancel"));
    this.end = new EndCard(side, this.run, this.actions);
    this.#buildPlot();
    this.strip = new Strip(this.element, this.run.client.picture);
  }

  #buildPlot() {
    const plot = createElement("div", "danceopd-plot", this.element);
    this.canvas = createElement("canvas", "", plot);
    this.canvas.setAttribute("role", "img");
    const empty = createElement("div", "danceopd-empty", plot);
    this.estimate = createElement("b", "", empty);
    this.hint = createElement("span", "", empty);
    this.reason = createElement("span", "danceopd-reason", empty);
    this.canvas.addEventListener("pointermove", ({ offsetX }) => this.#hover(offsetX));
    this.canvas.addEventListener("pointerleave", () => this.#hover(null));
    this.observer = new ResizeObserver(() => this.#draw());
    this.observer.observe(this.canvas);
  }

  #hover(x) {
    const { series, event } = this.run;
    this.hovered = x === null || !series.last ? null : updateAt(this.canvas, series, event, x);
    this.#renderRoutes();
    this.#draw();
  }

  #draw() {
    cancelAnimationFrame(this.drawing);
    this.drawing = requestAnimationFrame(() => drawChart(this.canvas, this.run.series, this.run.event, this.hovered));
  }

  #render() {
    const { event, running, offline, pending } = this.run;
    const lost = running && offline;
    const work = running ? event.work : null;
    const [done, total] = work?.total ? [work.done, work.total] : [event?.update ?? 0, event?.steps ?? 0];
    this.element.dataset.state = lost ? "lost" : event?.state ?? "idle";
    this.element.dataset.warned = Boolean(event?.warning);
    this.state.textContent = lost ? t("Connection lost") : event ? stateText(event.state) : t("Not run yet");
    this.message.textContent = this.message.title = messageText(event, work);
    this.count.textContent = done || work?.total ? `${done} / ${total}` : "";
    this.progress.style.width = `${total ? (100 * done) / total : 0}%`;
    this.bar.setAttribute("aria-valuenow", done);
    this.bar.setAttribute("aria-valuemax", total);
    this.hint.textContent = hintText(this.run);
    this.estimate.textContent = event ? "" : sentence(this.run.estimate);
    this.reason.textContent = reasonText(this.run);
    this.canvas.setAttribute("aria-label", t("Validation and loss of each route over the updates"));
    this.facts.replaceChildren(...factTexts(event, running, work).map((text) => createElement("span", "", null, text)));
    this.#renderHealth(event);
    this.query.textContent = this.query.title = running ? queriesText(event) : "";
    this.earlier.textContent = this.earlier.title = earlierText(event, running);
    this.#renderRoutes();
    this.strip.render(this.run.strip, event, running);
    this.end.render();
    this.buttons.hidden = Boolean(event) && !running;
    this.stop.textContent = pending === "stop" ? t("Stopping …") : t("Stop and save");
    this.stop.title = t("Ends training after the current update; the workflow continues with the trained LoRA");
    this.stop.disabled = event?.state !== "training" || lost || pending !== "";
    this.cancel.textContent = pending === "cancel" ? t("Cancelling …") : t("Cancel");
    this.cancel.title = t("Cancels the whole prompt; the LoRA and a checkpoint are saved");
    this.cancel.disabled = !running || lost || pending === "cancel";
    this.#draw();
  }

  #renderHealth(event) {
    if (!event?.health || !event.update) return;
    const chip = createElement("span", "danceopd-health", this.facts, healthText(event.health));
    chip.dataset.health = event.health.state;
    chip.title = verdictText(event.health.verdict);
  }

  #renderRoutes() {
    const rows = routeRows(this.run, this.hovered ?? Infinity).map(({ colour, watched, name, about, values }) => {
      const swatch = createElement("b", watched ? "watched" : "");
      swatch.style.color = colour;
      const label = createElement("span", "", null, name);
      label.title = about;
      return [swatch, label, ...values.map((text) => createElement("i", "", null, text))];
    });
    this.routes.replaceChildren(...rows.flat());
  }
}
