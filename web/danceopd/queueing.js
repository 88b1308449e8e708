// Hears of faults that keep a Train node from running: of refused prompts, and of other nodes.

import { api } from "/scripts/api.js";

import { get } from "./client.js";
import { faultText, heldBack } from "./faults.js";

// `nodeAt(id)`: the node of an execution id; `show(node, text)`: shows the fault on a node of this type.
export function watchFaults(type, nodeAt, show) {
  const titleOf = (id) => nodeAt(id)?.title ?? id;

  function showFault(prompt, faulty, text) {
    for (const id of heldBack(prompt, type, faulty)) show(nodeAt(id), text);
  }

  // Faults that are found when a prompt is queued reach no event: the request's answer tells them.
  const queuePrompt = api.queuePrompt;
  api.queuePrompt = async function (number, data, ...more) {
    const showErrors = (errors) => {
      if (errors && Object.keys(errors).length) {
        showFault(data.output, Object.keys(errors), faultText(errors, titleOf));
      }
    };
    try {
      const answer = await queuePrompt.call(this, number, data, ...more);
      showErrors(answer?.node_errors);
      return answer;
    } catch (error) {
      showErrors(error?.response?.node_errors);
      throw error;
    }
  };

  api.addEventListener("execution_error", async ({ detail }) => {
    const { prompt_id: prompt, node_id: id, node_type: kind, exception_message: message } = detail;
    if (kind === type) return; // its own status tells
    const nodes = await promptNodes(prompt);
    if (nodes) showFault(nodes, [id], `${titleOf(id)}: ${String(message).trim()}`);
  });
}

// Of a running prompt, or of one that has just ended.
async function promptNodes(id) {
  const queue = await get("/queue");
  const running = queue?.queue_running.find(([, other]) => other === id)?.[2];
  return running ?? (await get(`/history/${encodeURIComponent(id)}`))?.[id]?.prompt?.[2];
}
