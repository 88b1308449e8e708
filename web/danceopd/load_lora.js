// Puts a node that loads the trained LoRA beside the Train node, wired to the MODEL that it was trained on.

const NATIVE = "DanceOPD_NativeModel";
const FOLDER = "DanceOPD_LoadModel";
const STOCK = "LoraLoaderModelOnly";
const OWN = "DanceOPD_LoadLora"; // the loader of the embedded model's world
const GAP = 40; // px

function* inputsOf(graph, node) {
  for (const input of node?.inputs ?? []) {
    const link = input.link == null ? undefined : (graph.getLink?.(input.link) ?? graph.links[input.link]);
    const source = link && graph.getNodeById(link.origin_id);
    if (source) yield { name: input.name, source, slot: link.origin_slot };
  }
}

// The nearest node of one of these types that this one depends on.
export function upstream(graph, node, types) {
  const [queue, seen] = [[node], new Set([node])];
  for (const next of queue) {
    for (const { source } of inputsOf(graph, next)) {
      if (types.includes(source.type)) return source;
      if (!seen.has(source)) seen.add(source) && queue.push(source);
    }
  }
  return null;
}

// Which node loads the LoRA, and the output that it takes the MODEL from, if the graph has one.
export function loaderFor(graph, train) {
  const model = upstream(graph, train, [NATIVE, FOLDER]);
  const from = model?.type === NATIVE ? [...inputsOf(graph, model)].find(({ name }) => name === "model") : undefined;
  const embedded = model?.type === FOLDER && model.widgets?.some(({ value }) => value === "shapes");
  return { type: embedded ? OWN : STOCK, from: from ?? null };
}

// A place below the node or right of it that no other node covers.
export function freePlace(graph, beside, size) {
  const covers = ([x, y]) => graph.nodes.some(({ pos, size: other, title_height: title = 30 }) =>
    x < pos[0] + other[0] + GAP / 2 && x + size[0] + GAP / 2 > pos[0] &&
    y < pos[1] + other[1] + title && y + size[1] + title > pos[1]);
  const [x, y] = [beside.pos[0] + beside.size[0] + GAP, beside.pos[1]];
  for (let step = 0; step < 60; step += 1) {
    for (const place of [[x, y + step * GAP], [beside.pos[0], y + beside.size[1] + 60 + step * GAP]]) {
      if (!covers(place)) return place;
    }
  }
  return [x, y];
}

// `make(type)` makes a node. Its combos hold the file: refresh them before.
export function addLoader(graph, train, file, make) {
  const { type, from } = loaderFor(graph, train);
  const node = make(type);
  node.pos = freePlace(graph, train, node.size);
  graph.add(node);
  const widget = node.widgets.find(({ name }) => name === "lora_name");
  if (Array.isArray(widget.options?.values) && !widget.options.values.includes(file)) widget.options.values.push(file);
  widget.value = file;
  widget.callback?.(file);
  if (from) from.source.connect(from.slot, node, node.inputs.findIndex(({ name }) => name === "model"));
  return node;
}
