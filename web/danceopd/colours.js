// A colour for each type of the pack's sockets and links, in both renderers, where the page's palette has none.

const COLOURS = {
  DANCEOPD_MODEL: "#b39ddb",
  DANCEOPD_FIELD: "#ff9e80",
  DANCEOPD_BUCKET: "#aed581",
  DANCEOPD_ROUTES: "#4fc3f7",
  DANCEOPD_STUDENT: "#ffd54f",
};

// A palette sets the colours of types that it does not know to nothing.
function setDefault(table, type, colour) {
  let own = "";
  Object.defineProperty(table, type, {
    configurable: true,
    enumerable: true,
    get: () => own || colour,
    set: (value) => { own = value; },
  });
}

// tables: of the classic renderer, by type. Returns the rules of Nodes 2.0, which what a palette sets on an element outweighs.
export function colourSockets(tables) {
  for (const [type, colour] of Object.entries(COLOURS)) for (const table of tables) setDefault(table, type, colour);
  return `:root { ${Object.entries(COLOURS).map(([type, colour]) => `--color-datatype-${type}: ${colour};`).join(" ")} }`;
}
