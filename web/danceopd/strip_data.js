// The pictures over time as a table: rows are validation prompts, columns source, teacher and updates. No page, no server.
//
// { rows: [{ prompt, route }], columns: [{ kind: "source" | "teacher" | "update", update, pictures: [url or null] }] }

import { t } from "./i18n.js";

export function stripTable(strip, event) {
  const shown = event?.pictures ?? [];
  const given = strip?.rows?.length && strip.columns.length ? strip : {
    rows: shown.map(({ prompt }) => ({ prompt, route: null, source: null, teacher: null })),
    columns: shown.length ? [{ update: updateOf(shown[0].url) ?? event.update, pictures: shown.map(({ url }) => url) }] : [],
  };
  const fixed = ["source", "teacher"].map((kind) => ({ kind, pictures: given.rows.map((row) => row[kind] ?? null) }));
  const over = given.columns.map(({ update, pictures }) => ({ kind: "update", update, pictures }));
  return {
    rows: given.rows.map(({ prompt, route }) => ({ prompt, route })),
    columns: [...fixed.filter(({ pictures }) => pictures.some(Boolean)), ...over],
  };
}

// "now" is the newest column while the run goes on.
export function columnLabel(columns, index, running) {
  const { kind, update } = columns[index];
  if (kind === "source") return t("source");
  if (kind === "teacher") return t("teacher");
  return running && index === columns.length - 1 && update > 0 ? `${t("now")} · ${update}` : String(update);
}

// The newest column is compared with: the source if the row has one, else the earliest update.
export function compared(columns, row) {
  const source = columns.findIndex(({ kind, pictures }) => kind === "source" && pictures[row]);
  const first = columns.findIndex(({ kind, pictures }) => kind === "update" && pictures[row]);
  return source >= 0 ? source : first;
}

// The nearest column in this direction with a picture of the row; `index` itself if there is none.
export function nextColumn(columns, row, index, step) {
  for (let i = index + step; i >= 0 && i < columns.length; i += step) if (columns[i].pictures[row]) return i;
  return index;
}

// The names of pictures begin with their update.
function updateOf(url) {
  const digits = /(\d+)-\d+\.png$/.exec(url)?.[1];
  return digits && Number(digits);
}
