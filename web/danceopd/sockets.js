// Names the sockets inside dynamic combos in the page's language, which the page does for all others. No page, no server.

import { inputName } from "./i18n.js";

// Sockets of such inputs are called "<combo>.<input>", and shown as "<input>".
export function nameSockets(node) {
  for (const input of node.inputs ?? []) {
    const plain = input.name.split(".").at(-1);
    const name = plain === input.name || input.widget ? undefined : inputName(node.comfyClass, input.name);
    if (!name) continue;
    input.localized_name = name;
    if (input.label === plain) input.label = name; // another one is a person's own
  }
}

// The sockets come anew with each choice of a combo.
export function followSockets(node) {
  nameSockets(node);
  for (const widget of node.widgets ?? []) {
    const before = widget.callback;
    widget.callback = function (...given) {
      const result = before?.apply(this, given);
      nameSockets(node);
      return result;
    };
  }
}
