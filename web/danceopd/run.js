// What the page knows of one Train node's run: its last status, its series and its pictures. Views listen to it.

import { t } from "./i18n.js";
import { addEvent, addHistory, copyOf, emptySeries } from "./series.js";

const HISTORY_INTERVAL = 3000; // ms, least time between two requests of the history
const RUNNING = ["opening", "training"];

export class Run {
  // `client`: history(run, after), strip(run), stop(id) and cancel(id) return promises.
  constructor(client) {
    this.client = client;
    this.event = null;
    this.series = emptySeries();
    this.history = emptySeries(); // of the server's history, as far as it was asked for
    this.strip = null; // the server's pictures over time
    this.pending = ""; // "stop" or "cancel" from the click until the run has ended
    this.offline = false; // whether the connection to the server is lost
    this.estimate = ""; // of a run that has not begun
    this.reason = ""; // why there is none
    this.views = new Set();
  }

  // `view`: called on every change. Returns what ends that.
  listen(view) {
    this.views.add(view);
    view();
    return () => this.views.delete(view);
  }

  get running() {
    return RUNNING.includes(this.event?.state);
  }

  // Shows a status event of the run.
  update(event) {
    const newRun = event.run !== this.event?.run;
    const before = this.event;
    if (!RUNNING.includes(event.state) || newRun) this.pending = "";
    this.event = event;
    if (newRun || (event.state === "training" && event.update < this.series.last)) {
      this.series = emptySeries();
      this.history = emptySeries();
    }
    const gap = event.state !== "opening" && (event.update > 0 || event.state === "training") && addEvent(this.series, event);
    if (gap || (event.update > 0 && !this.running)) this.#requestHistory();
    if (newRun) this.strip = null;
    if (newRun || before.state !== event.state || lastPicture(before) !== lastPicture(event)) this.#fetchStrip();
    this.changed();
  }

  // Shows a fault that the server has no status of: the node did not run.
  failed(message) {
    const nothing = { run: "", update: 0, steps: 0, losses: {}, pictures: [] };
    this.update({ ...nothing, ...this.event, state: "failed", message, work: null });
  }

  // The run is not known any more.
  ended() {
    if (this.running) {
      this.update({ ...this.event, state: "cancelled", message: t("The server has ended"), work: null });
    }
  }

  disconnected(offline) {
    this.offline = offline;
    this.changed();
  }

  estimated(text, reason = "") {
    if (text === this.estimate && reason === this.reason) return;
    Object.assign(this, { estimate: text, reason });
    this.changed();
  }

  // Asks the server to "stop" or to "cancel".
  async act(action) {
    this.pending = action;
    this.changed();
    const accepted = await this.client[action](this.event.node).catch(() => false);
    if (!accepted) this.pending = "";
    this.changed();
  }

  // What a request has changed of the results.
  saved(changes) {
    this.event = { ...this.event, saved: { ...this.event.saved, ...changes } };
    this.changed();
  }

  changed() {
    this.views.forEach((view) => view());
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
    this.changed();
  }

  async #fetchStrip() {
    const { run, state } = this.event;
    if (!run || state === "opening") return;
    const strip = await this.client.strip(run).catch(() => null);
    if (!strip || this.event.run !== run) return;
    this.strip = strip;
    this.changed();
  }
}

function lastPicture(event) {
  return event?.pictures?.[0]?.url;
}
