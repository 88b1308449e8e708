// What a run that has ended leaves: its LoRA, where, of which update, and what can be done with it.

import { copyText, createButton, createElement } from "./elements.js";
import { durationText } from "./format.js";
import { fill, t } from "./i18n.js";
import { openOldRuns } from "./old_runs.js";

export class EndCard {
  // `actions.addLora(file)`: puts a node that loads it into the graph.
  constructor(parent, run, actions) {
    this.run = run;
    this.actions = actions;
    this.element = createElement("div", "danceopd-end", parent);
    this.name = createElement("div", "danceopd-end-name", this.element);
    this.facts = createElement("div", "danceopd-end-facts", this.element);
    this.note = createElement("div", "danceopd-end-note", this.element);
    this.note.setAttribute("role", "status");
    const buttons = createElement("div", "danceopd-buttons", this.element);
    this.add = createButton(buttons, "", () => this.#busy(this.add, () => this.#addLora()), "primary");
    this.publish = createButton(buttons, "", () => this.#busy(this.publish, () => this.#publish()));
    this.open = createButton(buttons, "", () => this.#busy(this.open, () => this.#openFolder()));
    this.old = createButton(buttons, "", () => openOldRuns(run.client, run.event?.run));
  }

  render() {
    const { event, running } = this.run;
    const saved = (!running && event?.saved) || null;
    this.element.hidden = !event || running;
    if (this.element.hidden || event.run !== this.of) this.note.replaceChildren();
    this.of = event?.run;
    if (this.element.hidden) return;
    this.name.textContent = saved ? saved.lora : "";
    this.name.title = saved ? t("In the list of Load LoRA") : "";
    this.facts.textContent = this.facts.title = saved ? this.#factTexts(saved, event).join(" · ") : "";
    this.add.textContent = t("Add Load LoRA node");
    this.open.textContent = t("Open folder");
    this.old.textContent = t("Delete old runs");
    this.add.hidden = !saved || !this.actions.addLora;
    this.open.hidden = !saved;
    const wanted = this.#wanted(saved, event);
    this.publish.hidden = !saved;
    this.publish.disabled = !wanted;
    this.publish.textContent = wanted === "last" ? t("Publish last") : t("Publish best");
    this.publish.title = wanted
      ? t("Writes the LoRA of that update in place of the one in the loras folder")
      : t("The saved LoRA is the best one");
  }

  #factTexts(saved, event) {
    const texts = [fill(t("update {update} of {steps}"), { update: saved.update, steps: event.steps })];
    if (saved.seconds > 0) texts.push(fill(t("trained in {time}"), { time: durationText(saved.seconds) }));
    if (event.best) texts.push(bestText(event.best));
    if (saved.folder) texts.push(saved.folder);
    return texts;
  }

  // Which other update can be published.
  #wanted(saved, event) {
    const best = event.best?.update;
    if (!saved || best === undefined || best === event.update) return "";
    if (saved.update === best) return "last";
    return saved.best_kept ? "best" : "";
  }

  async #busy(button, act) {
    button.disabled = true;
    try {
      await act();
    } catch (error) {
      this.#tell(String(error.message ?? error));
    }
    button.disabled = false;
    this.render();
  }

  async #addLora() {
    await this.actions.addLora(this.run.event.saved.lora);
    this.#tell(t("Added beside the Train node"));
  }

  async #publish() {
    const { run, saved } = this.run.event;
    const answer = await this.run.client.publish(run, this.#wanted(saved, this.run.event));
    if (!answer.ok) return this.#tell(answer.error);
    this.run.saved({ lora: answer.lora, update: answer.update });
    this.#tell(fill(t("The LoRA in the loras folder is that of update {update} now"), { update: answer.update }));
  }

  async #openFolder() {
    const { run, saved } = this.run.event;
    const answer = await this.run.client.openFolder(run);
    if (answer.ok) return;
    // Refused to pages on other machines: they get the path.
    this.#tell(saved.folder || answer.error);
    const copy = createButton(this.note, t("Copy"), async () => {
      if (await copyText(saved.folder || answer.error)) copy.textContent = t("Copied");
    });
  }

  #tell(text) {
    this.note.replaceChildren();
    createElement("span", "", this.note, text ?? "");
  }
}

export function bestText({ update, percent }) {
  const values = { update, percent: Number(percent.toPrecision(3)) };
  return fill(t("best at update {update}: {percent} % of the start"), values);
}
