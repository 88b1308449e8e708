// The verdict on a LoRA in the page's language: of the panel, and of the text of LoRA Report. No page and no server.

import { sentence } from "./i18n.js";

// The first line of a report, and how the second begins.
const REPORT = /^(.+?: )((?:healthy|doubtful|dead|broken): [^\n]+)(\nkeys: .*)$/s;

// Its sentences one by one; those without a translation stay.
export function verdictText(verdict) {
  return verdict.split(". ").map(sentence).join(". ");
}

// A node's text, with the verdict translated if it is a report, whatever node shows it.
export function reportText(text) {
  const found = typeof text === "string" ? REPORT.exec(text) : null;
  return found ? found[1] + verdictText(found[2]) + found[3] : text;
}

// Changes what a node has given to the page, before the page shows it.
export function translateReports(output) {
  if (Array.isArray(output?.text)) output.text = output.text.map(reportText);
}
