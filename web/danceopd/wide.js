// A tab of the bottom panel with the same content as a Train node's panel, in a wide layout: of the selected Train node,
// else of a running one.

import { createElement } from "./elements.js";
import { t } from "./i18n.js";
import { Panel } from "./panel.js";

export const TAB = "danceopd.training";
const INTERVAL = 400; // ms between looks at what is selected

// Of [node, run]: the selected one, else the one shown before, else a running one, else the last.
export function chosen(trainers, isSelected, before) {
  const first = (test) => trainers.find(([node, run]) => test(node, run));
  return first((node) => isSelected(node)) ?? first((node) => node === before) ?? first((_, run) => run.running) ?? trainers.at(-1) ?? null;
}

// `trainers()`: [node, run] of the graph; `isSelected(node)`; `actionsOf(node)` of the panel.
export function wideTab(trainers, isSelected, actionsOf) {
  let timer, place, shown, panel;

  function follow() {
    const found = chosen(trainers(), isSelected, shown?.[0]);
    const same = shown && found && found[0] === shown[0] && found[1] === shown[1];
    if (same || (!found && !shown && place.firstChild)) return;
    panel?.dispose();
    panel = found && new Panel(found[1], actionsOf(found[0]), found[0].title);
    place.replaceChildren(panel?.element ?? createElement("p", "danceopd-nothing", null, t("There is no Train node in this workflow")));
    shown = found;
  }

  function destroy() {
    clearInterval(timer);
    panel?.dispose();
    panel = shown = undefined;
  }

  return {
    id: TAB,
    get title() {
      return t("Training");
    },
    type: "custom",
    render(element) {
      destroy();
      place = createElement("div", "danceopd-tab");
      place.style.cssText = "height: 100%; min-height: 0; overflow: hidden;";
      element.style.height = "100%";
      element.replaceChildren(place);
      follow();
      timer = setInterval(() => (place.isConnected ? follow() : destroy()), INTERVAL);
    },
    destroy,
  };
}
