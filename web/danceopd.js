// Gives every Train node its live panel, brings it the server's events, and restores it after a reload.

import { api } from "/scripts/api.js";
import { app } from "/scripts/app.js";

import { nodeOf, ownValue, walk } from "./danceopd/graph.js";
import { HEIGHT, Panel } from "./danceopd/panel.js";
import { speak } from "./danceopd/words.js";

const TRAIN = "DanceOPD_Train";
const panels = new WeakMap(); // node -> Panel

async function get(route) {
  const answer = await api.fetchApi(route);
  return answer.ok ? answer.json() : null;
}

// The id of the running prompt that has this Train node in it.
async function promptOf(id) {
  const queue = await get("/queue");
  return queue?.queue_running.find(([, , prompt]) => prompt[id]?.class_type === TRAIN)?.[1];
}

const calls = {
  history: (run) => get(`/danceopd/runs/${encodeURIComponent(run)}/history`),

  async stop(id) {
    const body = JSON.stringify({ node: id });
    const headers = { "Content-Type": "application/json" };
    const answer = await api.fetchApi("/danceopd/stop", { method: "POST", headers, body });
    return answer.ok && (await answer.json()).stopping;
  },

  async cancel(id) {
    const prompt = await promptOf(id);
    if (prompt) await api.interrupt(prompt);
    return prompt !== undefined;
  },

  picture(url) {
    if (!url.startsWith("/danceopd/runs/")) throw new Error(`${url} is no picture of a run`);
    return api.apiURL(url);
  },
};

// Another workflow's node can have the same id, so the run's name has to be this node's too.
function isOf(event, node) {
  const name = ownValue(node, "name");
  return node.comfyClass === TRAIN && (name === undefined || String(name).trim() === event.run);
}

function deliver(event) {
  const node = nodeOf(app.rootGraph, event.display_node) ?? nodeOf(app.rootGraph, event.node);
  if (node && isOf(event, node)) panels.get(node)?.take(event);
}

// What the server last told of this node; after a restart, what the folder of the run of its name holds.
async function restore(id, node, runs) {
  const last = await get(`/danceopd/nodes/${encodeURIComponent(id)}`);
  const name = String(ownValue(node, "name") ?? "").trim();
  const mine = last && isOf(last, node);
  const event = mine ? last : runs.includes(name) && (await get(`/danceopd/runs/${encodeURIComponent(name)}`));
  if (event) panels.get(node)?.take(event);
}

app.registerExtension({
  name: "DanceOPD.Panel",

  async init() {
    api.addEventListener("danceopd.step", ({ detail }) => deliver(detail));
    speak(await get("/i18n"), app.extensionManager.setting.get("Comfy.Locale"));
  },

  nodeCreated(node) {
    if (node.comfyClass !== TRAIN) return;
    const panel = new Panel(calls);
    const widget = node.addDOMWidget("panel", "danceopd_panel", panel.element, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => HEIGHT + 20,
    });
    widget.serialize = false; // the option keeps it out of the prompt, this out of the saved workflow
    panels.set(node, panel);
    // The wheel zooms the canvas here as it does beside the panel.
    panel.element.addEventListener("wheel", (event) => {
      if (event.target.closest(".danceopd-routes, .danceopd-pictures") && !event.ctrlKey) return;
      event.preventDefault();
      event.stopPropagation();
      app.canvas.processMouseWheel(event);
    }, { passive: false });
  },

  async afterConfigureGraph() {
    const mine = [...walk(app.rootGraph)].filter(([, node]) => node.comfyClass === TRAIN);
    if (!mine.length) return;
    const runs = (await get("/danceopd/runs")) ?? [];
    await Promise.all(mine.map(([id, node]) => restore(id, node, runs)));
  },
});
