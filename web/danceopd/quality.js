// Keeps the presets of Train Student LoRA and the widgets that they set in agreement. No page and no server.

const CUSTOM = "custom";

// widget -> value, by preset, as the server describes the node.
export function presetsOf(definition) {
  return definition?.input?.optional?.quality?.[1]?.presets ?? {};
}

// A chosen preset writes its values into the widgets; a value of another kind, set by hand, makes it custom.
export function followPresets(node, presets) {
  const named = (name) => node.widgets?.find((widget) => widget.name === name);
  const quality = named("quality");
  if (!quality) return;
  const onChange = (widget, then) => {
    const before = widget.callback;
    widget.callback = function (...given) {
      const result = before?.apply(this, given);
      then();
      return result;
    };
  };
  onChange(quality, () => {
    for (const [name, value] of Object.entries(presets[quality.value] ?? {})) named(name).value = value;
  });
  for (const name of new Set(Object.values(presets).flatMap(Object.keys))) {
    onChange(named(name), () => {
      const wanted = presets[quality.value];
      if (wanted && named(name).value !== wanted[name]) quality.value = CUSTOM;
    });
  }
}
