// Which Train nodes of a prompt a fault keeps from running. No page and no server.
//
// A prompt is as the server takes it: id -> { class_type, inputs }; a link is [id, slot].

function isLink(value) {
  return Array.isArray(value) && value.length === 2;
}

// Whether the node `id` needs one of `others`, or is one of them.
function needs(prompt, id, others, seen = new Set()) {
  if (others.has(id)) return true;
  if (seen.has(id) || !prompt[id]) return false;
  seen.add(id);
  const links = Object.values(prompt[id].inputs ?? {}).filter(isLink);
  return links.some(([source]) => needs(prompt, String(source), others, seen));
}

// The ids of the nodes of this type that cannot run, since one of `faulty` or what needs it comes before them.
export function heldBack(prompt, type, faulty) {
  const others = new Set([...faulty].map(String));
  return Object.keys(prompt).filter((id) => prompt[id].class_type === type && needs(prompt, id, others));
}

// The faults of a refused prompt as one text: id -> { errors: [{ message, details }] } by `titleOf(id)`.
export function faultText(errors, titleOf) {
  const lines = Object.entries(errors).map(([id, { errors: own }]) => {
    const texts = own.map(({ message, details }) => ownWords(details) || `${message}: ${details}`);
    return `${titleOf(id)}: ${[...new Set(texts)].join("; ")}`;
  });
  return lines.join("\n");
}

// What a node itself says of its inputs: the server puts "<input> - " before it, once for every input.
function ownWords(details) {
  return /^[\w.]+ - (.+)$/s.exec(details ?? "")?.[1];
}
