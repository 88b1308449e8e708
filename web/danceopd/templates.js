// Shows the notes and titles of a shipped template in the page's language. No page and no server.

import { templateText } from "./i18n.js";

const NOTES = ["MarkdownNote", "Note"];

// A note is translated line by line; null for one that is not shipped, or in English.
function translated(text) {
  const lines = String(text ?? "").split("\n").map((line) => (line.trim() ? templateText(line) : line));
  return lines.some((line) => line === undefined) || !lines.some((line) => line.trim()) ? null : lines.join("\n");
}

// Changes nothing in a workflow without a shipped note: its titles are a person's own.
export function translateTemplate(graph) {
  const notes = graph.nodes.filter(({ type }) => NOTES.includes(type));
  const texts = notes.map((note) => [note.widgets?.[0], translated(note.widgets?.[0]?.value)]);
  if (!texts.some(([, text]) => text)) return;
  for (const [widget, text] of texts) if (text) widget.value = text;
  for (const titled of [...graph.nodes, ...(graph.groups ?? [])]) titled.title = templateText(titled.title) ?? titled.title;
}
