// Translates the panel's texts. The English text is the key in locales/<language>/main.json under "danceopd".

let table = {};

// Selects the language. `translations`: the response of GET /i18n. Languages without a translation stay English.
export function load(translations, locale) {
  table = translations?.[locale]?.danceopd ?? translations?.[String(locale).split("-")[0]]?.danceopd ?? {};
}

// The translation of an English text, or the text itself.
export function t(text) {
  return table[text] ?? text;
}
