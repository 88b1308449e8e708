// The list of the runs in output/danceopd, with their sizes, and a button to delete each.

import { createButton, createElement } from "./elements.js";
import { sizeText } from "./format.js";
import { fill, stateText, t } from "./i18n.js";
import { openOverlay } from "./overlay.js";

export async function openOldRuns(client, current) {
  const body = openOverlay(t("Runs in output/danceopd"), "danceopd-runs");
  const note = createElement("p", "", body, t("Loading …"));
  const runs = await client.storedRuns().catch(() => null);
  if (!runs?.length) {
    note.textContent = t(runs ? "There is none." : "The server does not list them.");
    return;
  }
  const table = createElement("div", "danceopd-runs-table", body);
  let bytes = runs.reduce((sum, run) => sum + run.bytes, 0);
  const total = () => {
    note.textContent = fill(t("{size} in all. A deleted run cannot be resumed; its LoRA in the loras folder stays."), { size: sizeText(bytes) });
  };
  runs.forEach((run) => row(table, client, run, run.name === current, () => {
    bytes -= run.bytes;
    total();
  }));
  total();
}

function row(table, client, run, current, gone) {
  const element = createElement("div", "danceopd-run", table);
  const name = createElement("span", "danceopd-run-name", element);
  createElement("b", "", name, run.name).title = run.name;
  const facts = [stateText(run.state), fill(t("update {update}"), { update: run.update }), dateText(run.time)];
  createElement("small", "", name, [current ? t("this run") : "", ...facts, run.lora].filter(Boolean).join(" · "));
  createElement("span", "danceopd-run-size", element, sizeText(run.bytes));
  let sure = false;
  const button = createButton(element, t("Delete"), async () => {
    if (!sure) {
      sure = true;
      button.textContent = t("Really delete?");
      button.classList.add("danger");
      return;
    }
    button.disabled = true;
    const answer = await client.remove(run.name);
    if (answer.ok) {
      element.remove();
      gone();
      return;
    }
    button.replaceWith(createElement("span", "danceopd-run-fault", null, answer.error ?? t("Failed")));
  });
  button.addEventListener("blur", () => {
    if (button.disabled) return;
    sure = false;
    button.textContent = t("Delete");
    button.classList.remove("danger");
  });
}

function dateText(seconds) {
  if (!Number.isFinite(seconds) || seconds <= 0) return "";
  return new Date(1000 * seconds).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}
