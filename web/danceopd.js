// ComfyUI extension: gives every Train node its run and its panel, passes them the server's events, restores them on reload.

import { api } from "/scripts/api.js";
import { app } from "/scripts/app.js";

import { hasAdvanced, hideAdvanced } from "./danceopd/advanced.js";
import { client, get } from "./danceopd/client.js";
import { colourSockets } from "./danceopd/colours.js";
import { choose, follow, refresh } from "./danceopd/csv_list.js";
import { Estimates } from "./danceopd/estimates.js";
import { nodeOf, ownValue, runName, walk } from "./danceopd/graph.js";
import { load, t } from "./danceopd/i18n.js";
import { addLoader } from "./danceopd/load_lora.js";
import { Panel } from "./danceopd/panel.js";
import { followPresets, presetsOf } from "./danceopd/quality.js";
import { watchFaults } from "./danceopd/queueing.js";
import { translateReports } from "./danceopd/reports.js";
import { Run } from "./danceopd/run.js";
import { followSockets, nameSockets } from "./danceopd/sockets.js";
import { HEIGHT } from "./danceopd/style.js";
import { firstView, inOrder, translateTemplate } from "./danceopd/templates.js";
import { endToast, finishedToast } from "./danceopd/toasts.js";
import { offerUpload } from "./danceopd/upload.js";
import { TAB, wideTab } from "./danceopd/wide.js";

const PACK = "DanceOPD_";
const TRAIN = "DanceOPD_Train";
const BUCKET = "DanceOPD_Bucket";
const ROUTES = "DanceOPD_Routes";
let presets = {}; // of the Train node's quality
const uploads = new WeakMap(); // bucket -> shows its button where it belongs
const folded = new Set(); // the pack's nodes with advanced widgets
const runs = new WeakMap(); // node -> Run
const states = new Map(); // name of a run -> its last state that this page was told as it happened

// [execution id, node, its run] of every Train node.
function trainers() {
  return [...walk(app.rootGraph)].filter(([, node]) => runs.has(node)).map(([id, node]) => [id, node, runs.get(node)]);
}

// A node of another workflow can have the same id, so the name of the run has to match as well.
function belongsTo(event, node) {
  const name = ownValue(node, "name");
  return node.comfyClass === TRAIN && (name === undefined || runName(name) === event.run);
}

function dispatch(event) {
  const toast = endToast(states.get(event.run), event);
  states.set(event.run, event.state);
  if (toast) app.extensionManager?.toast?.add(toast);
  const node = nodeOf(app.rootGraph, event.display_node) ?? nodeOf(app.rootGraph, event.node);
  if (node && belongsTo(event, node)) runs.get(node)?.update(event);
}

// The server runs no node anew whose inputs are as they were, so of a prompt that does nothing no event tells.
function tellFinished(ids) {
  for (const id of ids) {
    const node = nodeOf(app.rootGraph, id);
    const event = runs.get(node)?.event;
    if (event?.state === "done" && belongsTo(event, node)) app.extensionManager?.toast?.add(finishedToast(event));
  }
}

// Shows the server's last event of this node or, after a server restart, the saved status of the run of its name.
async function restore(id, node, run, names) {
  const last = await get(`/danceopd/nodes/${encodeURIComponent(id)}`);
  const name = runName(ownValue(node, "name") ?? "");
  const current = last && belongsTo(last, node);
  const event = current ? last : names.includes(name) && (await client.run(name));
  if (event) run.update(event);
  else run.ended(); // a server that was started anew knows nothing of the run
}

async function restoreAll() {
  const found = trainers();
  if (!found.length) return;
  const names = (await get("/danceopd/runs")) ?? [];
  await Promise.all(found.map(([id, node, run]) => restore(id, node, run, names)));
  estimates.soon();
}

const estimates = new Estimates(
  () => trainers().filter(([, , run]) => !run.event).map(([id, , run]) => [id, run]),
  async () => (await app.graphToPrompt()).output,
  client,
);

function hasWideView() {
  return typeof app.extensionManager?.bottomPanel?.toggleBottomPanelTab === "function";
}

function actionsOf(node) {
  return {
    async addLora(file) {
      await app.refreshComboInNodes();
      addLoader(node.graph, node, file, (type) => LiteGraph.createNode(type));
      app.canvas.setDirty(true, true);
    },
    widen: hasWideView() ? () => {
      app.canvas.selectNode?.(node);
      app.extensionManager.bottomPanel.toggleBottomPanelTab(TAB);
    } : undefined,
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

function applyStart() {
  const { canvas } = app.canvas;
  const view = firstView(app.rootGraph, [canvas.clientWidth, canvas.clientHeight]);
  if (!view) return;
  const { ds } = app.canvas;
  ds.scale = view.scale;
  [ds.offset[0], ds.offset[1]] = view.offset;
  app.canvas.setDirty(true, true);
}

let unseen; // waits for the canvas behind an app's form

// A canvas that is not shown has no size; the page fits the graph into it a frame after it shows it.
function showStart() {
  const { canvas } = app.canvas;
  unseen?.disconnect();
  if (canvas.clientWidth) {
    applyStart();
    return;
  }
  unseen = new ResizeObserver((entries, observer) => {
    if (!canvas.clientWidth) return;
    observer.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(applyStart));
  });
  unseen.observe(canvas);
}

function addPanel(node) {
  const run = new Run(client);
  runs.set(node, run);
  const panel = new Panel(run, actionsOf(node));
  const widget = node.addDOMWidget("panel", "danceopd_panel", panel.element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => HEIGHT + 20,
  });
  widget.serialize = false; // the option excludes it from the prompt, this property from the saved workflow
  // The side panel draws it at its own width and leaves that on it.
  Object.defineProperty(widget, "width", { get: () => undefined, set() {} });
  // The wheel zooms the canvas over the panel as it does beside it.
  panel.element.addEventListener("wheel", (event) => {
    if (event.target.closest(".danceopd-routes, .danceopd-strip") && !event.ctrlKey) return;
    event.preventDefault();
    event.stopPropagation();
    app.canvas.processMouseWheel(event);
  }, { passive: false });
}

// The page listens once its extensions are loaded, so this hears a node's output before it.
api.addEventListener("executed", ({ detail }) => translateReports(detail?.output));

app.registerExtension({
  name: "DanceOPD.Panel",

  async init() {
    api.addEventListener("danceopd.step", ({ detail }) => dispatch(detail));
    let cached = [];
    api.addEventListener("execution_cached", ({ detail }) => (cached = detail.nodes ?? []));
    api.addEventListener("executing", ({ detail }) => (cached = detail ? [] : cached));
    api.addEventListener("execution_success", () => tellFinished(cached.splice(0)));
    api.addEventListener("reconnecting", () => trainers().forEach(([, , run]) => run.disconnected(true)));
    api.addEventListener("reconnected", async () => {
      trainers().forEach(([, , run]) => run.disconnected(false));
      await restoreAll();
    });
    api.addEventListener("graphChanged", () => estimates.soon());
    watchFaults(TRAIN, (id) => nodeOf(app.rootGraph, id), (node, text) => runs.get(node)?.failed(text));
    orderTemplates();
    load(await get("/i18n"), app.extensionManager.setting.get("Comfy.Locale"));
  },

  beforeRegisterNodeDef(type, definition) {
    if (definition.name === TRAIN) presets = presetsOf(definition);
    if (definition.name.startsWith(PACK) && hasAdvanced(definition)) folded.add(definition.name);
  },

  setup() {
    addColours();
    const shown = () => trainers().map(([, node, run]) => [node, run]);
    const tab = wideTab(shown, (node) => Boolean(app.canvas?.selected_nodes?.[node.id] === node), actionsOf);
    if (hasWideView()) app.extensionManager.bottomPanel.registerBottomPanelTab?.(tab);
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
    if (node.comfyClass === TRAIN) {
      followPresets(node, presets);
      addPanel(node);
    }
  },

  async afterConfigureGraph() {
    translateTemplate(app.rootGraph);
    showStart();
    for (const [, node] of walk(app.rootGraph)) if (node.comfyClass === ROUTES) nameSockets(node);
    for (const node of buckets()) uploads.get(node)?.();
    await restoreAll();
  },
});
