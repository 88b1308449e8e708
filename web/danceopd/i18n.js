// Translates the panel's texts. The English text is the key in locales/<language>/main.json: of whole texts under
// "danceopd", of sentences with values in them under "danceopdSentences", of lines of templates under "danceopdTemplates".

const STATES = {
  opening: "Preparing", training: "Training", done: "Done", stopped: "Stopped and saved",
  cancelled: "Cancelled", failed: "Failed",
};

let table = {};
let sentences = []; // [pattern, names of its values, translation]
let templates = {};
let nodes = {}; // locales/<language>/nodeDefs.json

// Selects the language. `translations`: the response of GET /i18n. Languages without a translation stay English.
export function load(translations, locale) {
  const own = translations?.[locale] ?? translations?.[String(locale).split("-")[0]] ?? {};
  table = own.danceopd ?? {};
  templates = own.danceopdTemplates ?? {};
  nodes = own.nodeDefs ?? {};
  sentences = Object.entries(own.danceopdSentences ?? {}).map(([english, translation]) => {
    const parts = english.split(/\{(\w+)\}/); // text, name, text, name, ..., text
    const value = (name) => (name === "plural" ? "(s?)" : "(.+?)");
    const escaped = parts.map((part, i) => (i % 2 ? value(part) : part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")));
    return [new RegExp(`^${escaped.join("")}$`, "s"), parts.filter((part, i) => i % 2), translation];
  });
}

// The translation of an English text, or the text itself.
export function t(text) {
  return table[text] ?? text;
}

// The name of a run's state.
export function stateText(state) {
  return t(STATES[state] ?? state);
}

// A text with values in place of its {names}.
export function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

// The translation of a line or title of a shipped template; undefined if it is none, or the page is in English.
export function templateText(text) {
  return templates[text];
}

// The name of an input of a node of this type; undefined without a translation.
export function inputName(type, input) {
  return nodes[type]?.inputs?.[input.replaceAll(".", "_")]?.name;
}

// The translation of a sentence of the server's, with its values ({plural}: an s or nothing); the sentence itself if there
// is none.
export function sentence(text) {
  if (text in table) return table[text];
  for (const [pattern, names, translation] of sentences) {
    const values = pattern.exec(text)?.slice(1);
    if (values) return translation.replace(/\{(\w+)\}/g, (whole, name) => values[names.indexOf(name)] ?? whole);
  }
  return text;
}
