// Hides advanced widgets in the classic renderer as Nodes 2.0 does, with a button in the title that shows them.

const BUTTON = { name: "danceopd_advanced", text: "⋯", xOffset: -10, yOffset: 0, fontSize: 16 };

const isAdvanced = (widget) => widget.advanced || widget.options?.advanced;

// Whether a node has such inputs, those inside dynamic combos included, as the server describes it.
export function hasAdvanced(definition) {
  return JSON.stringify(definition.input ?? {}).includes('"advanced":true');
}

export function hideAdvanced(node) {
  const visible = node.isWidgetVisible;
  node.isWidgetVisible = (widget) => visible.call(node, widget) && (node.showAdvanced || !isAdvanced(widget));
  node.hasAdvancedWidgets = () => node.widgets?.some(isAdvanced) ?? false;
  node.getLayoutWidgets = () => node.widgets?.filter(node.isWidgetVisible) ?? []; // no room for hidden ones
  if (!node.addTitleButton) return;
  node.addTitleButton(BUTTON);
  const clicked = node.onTitleButtonClick;
  node.onTitleButtonClick = function (button, ...more) {
    if (button.name === BUTTON.name) this.toggleAdvanced();
    else clicked?.call(this, button, ...more);
  };
}
