// What the panel says, in the user's language: English text is the key of locales/<language>/main.json, "danceopd".

let table = {};

// `translations` as GET /i18n gives them; a language without them stays English.
export function speak(translations, locale) {
  table = translations?.[locale]?.danceopd ?? translations?.[String(locale).split("-")[0]]?.danceopd ?? {};
}

export function say(text) {
  return table[text] ?? text;
}
