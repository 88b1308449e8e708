// A dialog over the page: Escape, its button and a click beside it close it.

import { createButton, createElement } from "./elements.js";
import { t } from "./i18n.js";
import { OVERLAY_STYLE } from "./style_overlay.js";

let close = null;

// Returns the dialog's body. `keys(event)` returns whether it used the key. Another open one is closed.
export function openOverlay(title, name, keys = () => false) {
  close?.();
  const focused = document.activeElement;
  const overlay = createElement("div", `danceopd-overlay ${name}`, document.body);
  createElement("style", "", overlay).textContent = OVERLAY_STYLE;
  const dialog = createElement("div", "danceopd-dialog", overlay);
  dialog.setAttribute("role", "dialog");
  dialog.setAttribute("aria-modal", "true");
  dialog.setAttribute("aria-label", title);
  dialog.tabIndex = -1;
  const head = createElement("div", "danceopd-dialog-head", dialog);
  createElement("span", "", head, title);
  const end = () => {
    window.removeEventListener("keydown", pressed, true);
    overlay.remove();
    close = null;
    focused?.focus?.();
  };
  // No key of the dialog reaches the graph below it.
  const pressed = (event) => {
    const used = event.key === "Escape" ? (end(), true) : keys(event);
    if (used) event.preventDefault();
    event.stopPropagation();
  };
  createButton(head, "✕", end, "danceopd-close").setAttribute("aria-label", t("Close"));
  overlay.addEventListener("pointerdown", (event) => event.target === overlay && end());
  window.addEventListener("keydown", pressed, true);
  close = end;
  dialog.focus();
  return createElement("div", "danceopd-dialog-body", dialog);
}
