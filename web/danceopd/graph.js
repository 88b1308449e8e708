// Nodes and their execution ids: "7" in the root graph, "3:7" inside the subgraph node 3. Pure: a graph is an argument.

// Every node as [execution id, node], those inside subgraphs included.
export function* walk(graph, prefix = "") {
  for (const node of graph.nodes) {
    yield [`${prefix}${node.id}`, node];
    if (node.subgraph) yield* walk(node.subgraph, `${prefix}${node.id}:`);
  }
}

// The node of that execution id, or undefined.
export function nodeOf(graph, id) {
  const path = String(id).split(":");
  const node = graph.nodes.find((one) => String(one.id) === path[0]);
  if (path.length === 1 || !node) return node;
  return node.subgraph && nodeOf(node.subgraph, path.slice(1).join(":"));
}

// The value of a widget that the user sees on this node; undefined if a link gives it.
export function ownValue(node, name) {
  if (node.inputs?.some((input) => input.widget?.name === name && input.link != null)) return undefined;
  return node.widgets?.find((widget) => widget.name === name)?.value;
}
