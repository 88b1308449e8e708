// Keeps the list of CSV files of every Prompt Bucket as the server last told it, which the page does not do for the
// inputs of dynamic combos.

const FILE = "content.file";
let files = null; // what the server told when the lists were last refreshed

// The options of an input inside a dynamic combo, in the server's description of a node.
function told(definition) {
  const content = definition?.input?.required?.content?.[1];
  const option = content?.options?.find(({ inputs }) => inputs?.required?.file);
  return option?.inputs.required.file[1]?.options ?? null;
}

function update(node) {
  const widget = node.widgets?.find(({ name }) => name === FILE);
  if (widget && files) widget.options.values = [...files];
}

// Adds a file that has come since, and chooses it on this node.
export function choose(node, name, nodes) {
  const values = node.widgets?.find((widget) => widget.name === FILE)?.options.values ?? [];
  files = [...new Set([...(files ?? values), name])];
  nodes.forEach(update);
  const widget = node.widgets?.find((candidate) => candidate.name === FILE);
  if (!widget) return;
  widget.value = name;
  widget.callback?.(name);
}

export function refresh(definitions, nodes) {
  files = told(definitions.DanceOPD_Bucket) ?? files;
  nodes.forEach(update);
}

// The widget comes anew with each choice of the content.
export function follow(node) {
  const content = node.widgets?.find(({ name }) => name === "content");
  if (!content) return;
  const before = content.callback;
  content.callback = function (...given) {
    const result = before?.apply(this, given);
    update(node);
    return result;
  };
}
