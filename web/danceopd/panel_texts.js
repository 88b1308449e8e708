// The texts of a panel. No page and no server.

import { colourOf } from "./chart_panes.js";
import { durationText, memoryText, numberText, percentText, queryText } from "./format.js";
import { fill, sentence, t } from "./i18n.js";
import { farthest, percents, valueAt } from "./series.js";

export function messageText(event, work) {
  if (work) return sentence(work.what);
  const texts = [event?.message, event?.warning].filter(Boolean);
  return texts.map(sentence).join(". ");
}

export function hintText({ series, event }) {
  if (series.last) return "";
  if (event) return event.state === "training" && !event.work ? t("Running the first update") : "";
  return t("Press Run to see validation, loss and pictures of each route");
}

// Why there is no estimate: the graph as it is would not train.
export function reasonText({ event, reason }) {
  return event || !reason ? "" : `${t("Not ready yet")}: ${reason}`;
}

// The speed, the time left, the memory.
export function factTexts(event, running, work) {
  const facts = [];
  if (work) {
    facts.push(`${t("for")} ${durationText(work.seconds)}`);
    if (work.eta !== null) facts.push(`${t("time left")} ${durationText(work.eta)}`);
  }
  if (event?.update && event.rate > 0) {
    const slow = event.rate < 1;
    facts.push(`${numberText(slow ? 1 / event.rate : event.rate)} ${slow ? t("s/update") : t("updates/s")}`);
  }
  if (!work && running && event.update && event.eta !== null) facts.push(`${t("time left")} ${durationText(event.eta)}`);
  if (event?.update && event.memory_mb > 0) facts.push(`${t("memory")} ${memoryText(event.memory_mb)}`);
  return facts;
}

// The state of the LoRA at the last save.
export function healthText({ state }) {
  const words = { healthy: t("healthy"), doubtful: t("doubtful"), dead: t("dead"), broken: t("broken") };
  return `LoRA ${words[state] ?? state}`;
}

export function queriesText(event) {
  const distribution = queryText(event?.asked ?? []);
  return distribution && `${t("queries at sigma")} ${distribution}`;
}

export function earlierText(event, running) {
  return !running && event?.earlier ? `${t("Earlier LoRA of this name")}: ${event.earlier}` : "";
}

// A row for each route: its colour, its name with its share, its validation and its loss at this update.
export function routeRows({ series, event }, update) {
  return [...series.routes].map(([route, { loss, error }], index) => {
    const share = event?.shares?.[route];
    const watched = Boolean(event?.watched?.includes(route));
    const name = share === undefined || watched ? route : `${Math.round(100 * share)} % ${route}`;
    const percent = valueAt(percents(error, farthest(series.routes)), update);
    const values = [
      percent === undefined ? "" : fill(t("{percent} of start"), { percent: percentText(percent) }),
      loss.length || !watched ? `${t("loss")} ${numberText(valueAt(loss, update))}` : t("watched"),
    ];
    const count = event?.held_out?.[route];
    const about = count ? `${route}: ${fill(t("validated on {count} held-out prompts"), { count })}` : route;
    return { colour: colourOf(index), watched, name, about, values };
  });
}
