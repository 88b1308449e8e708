// ComfyUI extension: adds the live panel to every Train node, passes it the server's events, restores it on reload.

import { api } from "/scripts/api.js";
import { app } from "/scripts/app.js";

import { hasAdvanced, hideAdvanced } from "./danceopd/advanced.js";
import { colourSockets } from "./danceopd/colours.js";
import { choose, follow, refresh } from "./danceopd/csv_list.js";
import { faultText, heldBack } from "./danceopd/faults.js";
import { nodeOf, ownValue, runName, walk } from "./danceopd/graph.js";
import { load, t } from "./danceopd/i18n.js";
import { Panel } from "./danceopd/panel.js";
import { followPresets, presetsOf } from "./danceopd/quality.js";
import { followSockets, nameSockets } from "./danceopd/sockets.js";
import { HEIGHT } from "./danceopd/style.js";
import { offerUpload } from "./danceopd/upload.js";
import { firstView, inOrder, translateTemplate } from "./danceopd/templates.js";

const PACK = "DanceOPD_";
const TRAIN = "DanceOPD_Train";
const BUCKET = "DanceOPD_Bucket";
const ROUTES = "DanceOPD_Routes";
const panels = new WeakMap(); // node -> Panel
let presets = {}; // of the Train node's quality
const uploads = new WeakMap(); // bucket -> shows its button where it belongs
const folded = new Set(); // the pack's nodes with advanced widgets

async function get(route) {
  const response = await api.fetchApi(route);
  return response.ok ? response.json() : null;
}

// The id of the running prompt that contains this Train node.
async function promptOf(id) {
  const queue = await get("/queue");
  return queue?.queue_running.find(([, , prompt]) => prompt[id]?.class_type === TRAIN)?.[1];
}

const PAGE = 5000; // updates in one answer: a long history comes in parts

const client = {
  history: (run, after) => get(`/danceopd/runs/${encodeURIComponent(run)}/history?after=${after}&limit=${PAGE}`),

  async stop(id) {
    const body = JSON.stringify({ node: id });
    const headers = { "Content-Type": "application/json" };
    const response = await api.fetchApi("/danceopd/stop", { method: "POST", headers, body });
    return response.ok && (await response.json()).stopping;
  },

  async cancel(id) {
    const prompt = await promptOf(id);
    if (prompt) await api.interrupt(prompt);
    return prompt !== undefined;
  },

  picture(url) {
    if (!url.startsWith("/danceopd/runs/")) throw new Error(`${url} is not an image of a run`);
    return api.apiURL(url);
  },
};

// A node of another workflow can have the same id, so the name of the run has to match as well.
function belongsTo(event, node) {
  const name = ownValue(node, "name");
  return node.comfyClass === TRAIN && (name === undefined || runName(name) === event.run);
}

function dispatch(event) {
  const node = nodeOf(app.rootGraph, event.display_node) ?? nodeOf(app.rootGraph, event.node);
  if (node && belongsTo(event, node)) panels.get(node)?.update(event);
}

// Shows the server's last event of this node or, after a server restart, the saved status of the run of its name.
async function restore(id, node, runs) {
  const last = await get(`/danceopd/nodes/${encodeURIComponent(id)}`);
  const name = runName(ownValue(node, "name") ?? "");
  const current = last && belongsTo(last, node);
  const event = current ? last : runs.includes(name) && (await get(`/danceopd/runs/${encodeURIComponent(name)}`));
  if (event) panels.get(node)?.update(event);
  else panels.get(node)?.ended(); // a server that was started anew knows nothing of the run
}

async function restoreAll() {
  const nodes = [...walk(app.rootGraph)].filter(([, node]) => node.comfyClass === TRAIN);
  if (!nodes.length) return;
  const runs = (await get("/danceopd/runs")) ?? [];
  await Promise.all(nodes.map(([id, node]) => restore(id, node, runs)));
}

function allPanels() {
  return [...walk(app.rootGraph)].map(([, node]) => panels.get(node)).filter(Boolean);
}

function titleOf(id) {
  return nodeOf(app.rootGraph, id)?.title ?? id;
}

// Shows a fault on every panel whose node it keeps from running.
function showFault(prompt, faulty, text) {
  for (const id of heldBack(prompt, TRAIN, faulty)) {
    panels.get(nodeOf(app.rootGraph, id))?.failed(text);
  }
}

// Faults that are found when a prompt is queued reach no event: the request's answer tells them.
function watchQueueing() {
  const queuePrompt = api.queuePrompt;
  api.queuePrompt = async function (number, data, ...more) {
    const show = (errors) => {
      if (errors && Object.keys(errors).length) {
        showFault(data.output, Object.keys(errors), faultText(errors, titleOf));
      }
    };
    try {
      const answer = await queuePrompt.call(this, number, data, ...more);
      show(answer?.node_errors);
      return answer;
    } catch (error) {
      show(error?.response?.node_errors);
      throw error;
    }
  };
}

function buckets() {
  return [...walk(app.rootGraph)].map(([, node]) => node).filter((node) => node.comfyClass === BUCKET);
}

// ComfyUI's own route, which keeps a file of the same name and gives the new one another.
async function uploadTable(file) {
  const body = new FormData();
  body.append("image", file);
  const response = await api.fetchApi("/upload/image", { method: "POST", body });
  if (response.ok) return (await response.json()).name;
  const detail = `${response.status} ${response.statusText}`;
  app.extensionManager.toast.add({ severity: "error", summary: t("The file was not uploaded"), detail });
  throw new Error(detail);
}

function pickFile(accept) {
  const input = Object.assign(document.createElement("input"), { type: "file", accept });
  return new Promise((resolve) => {
    input.addEventListener("change", () => resolve(input.files[0] ?? null));
    input.addEventListener("cancel", () => resolve(null));
    input.click();
  });
}

function addUpload(node) {
  const chosen = (name) => choose(node, name, buckets());
  uploads.set(node, offerUpload(node, t("Upload a table"), { pick: pickFile, upload: uploadTable, chosen }));
}

function orderTemplates() {
  const { getWorkflowTemplates } = api;
  api.getWorkflowTemplates = async () => inOrder(await getWorkflowTemplates.call(api));
}

function addColours() {
  const style = document.createElement("style");
  style.textContent = colourSockets([app.canvas.default_connection_color_byType, app.canvas.constructor.link_type_colors]);
  document.head.append(style);
}

function showStart() {
  const { canvas } = app.canvas;
  const view = firstView(app.rootGraph, [canvas.clientWidth, canvas.clientHeight]);
  if (!view) return;
  const { ds } = app.canvas;
  ds.scale = view.scale;
  [ds.offset[0], ds.offset[1]] = view.offset;
  app.canvas.setDirty(true, true);
}

// Of a running prompt, or of one that has just ended.
async function promptNodes(id) {
  const queue = await get("/queue");
  const running = queue?.queue_running.find(([, other]) => other === id)?.[2];
  return running ?? (await get(`/history/${encodeURIComponent(id)}`))?.[id]?.prompt?.[2];
}

async function showExecutionError({ prompt_id: prompt, node_id: id, node_type: type, exception_message: message }) {
  if (type === TRAIN) return; // its own status tells
  const nodes = await promptNodes(prompt);
  if (nodes) showFault(nodes, [id], `${titleOf(id)}: ${String(message).trim()}`);
}

app.registerExtension({
  name: "DanceOPD.Panel",

  async init() {
    api.addEventListener("danceopd.step", ({ detail }) => dispatch(detail));
    api.addEventListener("execution_error", ({ detail }) => showExecutionError(detail));
    api.addEventListener("reconnecting", () => allPanels().forEach((panel) => panel.disconnected(true)));
    api.addEventListener("reconnected", async () => {
      allPanels().forEach((panel) => panel.disconnected(false));
      await restoreAll();
    });
    watchQueueing();
    orderTemplates();
    load(await get("/i18n"), app.extensionManager.setting.get("Comfy.Locale"));
  },

  setup: addColours,

  beforeRegisterNodeDef(type, definition) {
    if (definition.name === TRAIN) presets = presetsOf(definition);
    if (definition.name.startsWith(PACK) && hasAdvanced(definition)) folded.add(definition.name);
  },

  refreshComboInNodes(definitions) {
    refresh(definitions, buckets());
  },

  nodeCreated(node) {
    if (folded.has(node.comfyClass)) hideAdvanced(node);
    if (node.comfyClass === BUCKET) {
      follow(node);
      addUpload(node);
    }
    if (node.comfyClass === ROUTES) followSockets(node);
    if (node.comfyClass !== TRAIN) return;
    followPresets(node, presets);
    const panel = new Panel(client);
    const widget = node.addDOMWidget("panel", "danceopd_panel", panel.element, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => HEIGHT + 20,
    });
    widget.serialize = false; // the option excludes it from the prompt, this property from the saved workflow
    // The side panel draws it at its own width and leaves that on it.
    Object.defineProperty(widget, "width", { get: () => undefined, set() {} });
    panels.set(node, panel);
    // The wheel zooms the canvas over the panel as it does beside it.
    panel.element.addEventListener("wheel", (event) => {
      if (event.target.closest(".danceopd-routes, .danceopd-pictures") && !event.ctrlKey) return;
      event.preventDefault();
      event.stopPropagation();
      app.canvas.processMouseWheel(event);
    }, { passive: false });
  },

  async afterConfigureGraph() {
    translateTemplate(app.rootGraph);
    showStart();
    for (const [, node] of walk(app.rootGraph)) if (node.comfyClass === ROUTES) nameSockets(node);
    for (const node of buckets()) uploads.get(node)?.();
    await restoreAll();
  },
});
