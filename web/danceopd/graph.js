// Finds nodes by execution id: "7" in the root graph, "3:7" inside the subgraph node 3. No page and no server.

// Yields every node as [execution id, node], including those inside subgraphs.
export function* walk(graph, prefix = "") {
  for (const node of graph.nodes) {
    yield [`${prefix}${node.id}`, node];
    if (node.subgraph) yield* walk(node.subgraph, `${prefix}${node.id}:`);
  }
}

// The node with that execution id, or undefined.
export function nodeOf(graph, id) {
  const path = String(id).split(":");
  const node = graph.nodes.find((candidate) => String(candidate.id) === path[0]);
  if (path.length === 1 || !node) return node;
  return node.subgraph && nodeOf(node.subgraph, path.slice(1).join(":"));
}

// The name of a run as the server has it: without the ending of the LoRA's file.
export function runName(text) {
  return String(text).trim().replace(/\.safetensors$/i, "").trimEnd();
}

// The value of a widget as shown on this node; undefined if a link provides it.
export function ownValue(node, name) {
  if (node.inputs?.some((input) => input.widget?.name === name && input.link != null)) return undefined;
  return node.widgets?.find((widget) => widget.name === name)?.value;
}
