// What a toast tells when a run ends. No page and no server.

import { bestText } from "./end_card.js";
import { durationText } from "./format.js";
import { fill, sentence, t } from "./i18n.js";

const RUNNING = ["opening", "training"];
const LIFE = 12_000; // ms

// `before`: the run's last state on this page. null where there is nothing to tell, as after a reload.
export function endToast(before, event) {
  if (!RUNNING.includes(before) || RUNNING.includes(event.state)) return null;
  const saved = event.saved;
  if (event.state === "failed") {
    const told = saved ? `${sentence(event.message)}. ${savedText(saved)}` : sentence(event.message);
    return { severity: "error", summary: fill(t("{run} has failed"), event), detail: told, life: LIFE };
  }
  if (event.finished_before) return finishedToast(event);
  if (event.state === "cancelled") return null;
  const parts = [savedText(saved)];
  if (saved?.seconds > 0) parts.push(fill(t("trained in {time}"), { time: durationText(saved.seconds) }));
  if (event.best) parts.push(bestText(event.best));
  const stopped = event.state === "stopped";
  const summary = fill(stopped ? t("{run} has stopped and is saved") : t("{run} is trained"), event);
  return { severity: event.warning ? "warn" : "success", summary, detail: parts.filter(Boolean).join(" · "), life: LIFE };
}

// Of a run that is not trained again.
export function finishedToast(event) {
  const detail = t("Nothing was trained: its LoRA is in the loras folder. Change the name or the seed to train anew.");
  return { severity: "info", summary: fill(t("{run} was finished already"), event), detail, life: LIFE };
}

function savedText(saved) {
  return saved ? fill(t("saved as {lora}"), saved) : "";
}
