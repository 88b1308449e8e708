// Shows a shipped template: its start at a readable size, notes and titles in the page's language; and lists the templates
// in order. No page and no server.

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

const LEAST_SCALE = 0.7;
const EDGES = { left: 80, top: 100, right: 20, bottom: 20 }; // pixels of the canvas under the page's bars

// The names of templates by pack, as the server lists them in the order of its disk: those of this pack by number.
export function inOrder(lists) {
  for (const names of Object.values(lists ?? {})) if (names.some((name) => /^01 Quick start/.test(name))) names.sort();
  return lists;
}

// The view of a canvas of that size in pixels: all of a template if it is readable then, else its start; null for other
// graphs. Asked once: what is saved then is a person's own.
export function firstView(graph, [width, height]) {
  const marks = graph.extra?.danceopd;
  if (!marks?.start) return null;
  delete marks.start;
  const rects = [
    ...graph.nodes.map(({ pos, size }) => [pos[0], pos[1] - 30, pos[0] + size[0], pos[1] + size[1]]),
    ...(graph.groups ?? []).map(({ pos, size }) => [pos[0], pos[1], pos[0] + size[0], pos[1] + size[1]]),
  ];
  const [left, top] = [0, 1].map((side) => Math.min(...rects.map((rect) => rect[side])));
  const [right, bottom] = [2, 3].map((side) => Math.max(...rects.map((rect) => rect[side])));
  const room = [width - EDGES.left - EDGES.right, height - EDGES.top - EDGES.bottom];
  const scale = Math.max(LEAST_SCALE, Math.min(1, room[0] / (right - left), room[1] / (bottom - top)));
  return { scale, offset: [EDGES.left / scale - left, EDGES.top / scale - top] };
}
