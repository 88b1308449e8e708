// Tests of the panel's modules that need no page. `node --test` runs it next to a copy of web/danceopd/ (test_complete.py).

import assert from "node:assert/strict";
import { test } from "node:test";

import { hasAdvanced, hideAdvanced } from "./danceopd/advanced.js";
import { durationText, logTicks, memoryText, numberText, queryText, ticks } from "./danceopd/format.js";
import { colourSockets } from "./danceopd/colours.js";
import { choose, refresh } from "./danceopd/csv_list.js";
import { faultText, heldBack } from "./danceopd/faults.js";
import { nodeOf, ownValue, runName, walk } from "./danceopd/graph.js";
import { load, sentence, t } from "./danceopd/i18n.js";
import { followPresets, presetsOf } from "./danceopd/quality.js";
import { addEvent, addHistory, copyOf, downsample, emptySeries, runningMean, valueAt } from "./danceopd/series.js";
import { followSockets, nameSockets } from "./danceopd/sockets.js";
import { offerUpload } from "./danceopd/upload.js";
import { firstView, inOrder, translateTemplate } from "./danceopd/templates.js";

const history = {
  updates: [1, 2, 3],
  losses: { a: [0.4, null, 0.2], b: [null, 0.9, null] },
  validation: [{ update: 2, a: 0.5, b: null }],
};

function seriesFromHistory(...parts) {
  const series = emptySeries();
  for (const part of parts) addHistory(series, part);
  return series;
}

test("a history in parts is the history", () => {
  const first = { updates: [1, 2], losses: { a: [0.4, null], b: [null, 0.9] }, validation: history.validation, next: 2 };
  const second = { updates: [3], losses: { a: [0.2] }, validation: [], next: null };
  const parts = seriesFromHistory(first, second);
  assert.deepEqual(parts, seriesFromHistory(history));
  addHistory(parts, { updates: [], losses: {}, validation: [], next: null });
  assert.deepEqual(parts, seriesFromHistory(history));
});

test("a copy of a series grows on its own", () => {
  const series = seriesFromHistory(history);
  addEvent(copyOf(series), { update: 4, losses: { a: 0.1 } });
  assert.deepEqual(series, seriesFromHistory(history));
});

test("a history becomes points, without those that were not measured", () => {
  const series = seriesFromHistory(history);
  assert.deepEqual(series.routes.get("a"), { loss: [[1, 0.4], [3, 0.2]], error: [[2, 0.5]] });
  assert.deepEqual(series.routes.get("b"), { loss: [[2, 0.9]], error: [] });
  assert.equal(series.last, 3);
});

test("events give the points of the history of the same updates", () => {
  const series = emptySeries();
  const events = [
    { update: 1, losses: { a: 0.4 }, validation: null },
    { update: 2, losses: { a: 0.4, b: 0.9 }, validation: null },
    { update: 2, losses: { a: 0.4, b: 0.9 }, validation: { a: 0.5, b: null } },
    { update: 3, losses: { a: 0.2, b: 0.9 }, validation: { a: 0.5, b: null } },
  ];
  assert.deepEqual(events.map((event) => addEvent(series, event)), [false, false, false, false]);
  assert.deepEqual([...series.routes], [...seriesFromHistory(history).routes]);
});

test("an event that skips updates, or goes back, needs the history", () => {
  const series = seriesFromHistory(history);
  assert.equal(addEvent(series, { update: 9, losses: { a: 0.1 } }), true);
  assert.equal(addEvent(series, { update: 1, losses: {} }), true);
});

test("a NaN loss adds no point", () => {
  const series = emptySeries();
  addEvent(series, { update: 1, losses: { a: null }, validation: null });
  assert.deepEqual(series.routes.get("a").loss, []);
});

test("the running mean of a constant is that constant, and downsampling keeps the last update", () => {
  const points = Array.from({ length: 1000 }, (_, i) => [i + 1, 3]);
  assert.ok(runningMean(points, 7).every(([, value]) => Math.abs(value - 3) < 1e-12));
  const means = downsample(points, 90);
  assert.ok(means.length <= 90);
  assert.deepEqual(means.at(-1), [1000, 3]);
  assert.equal(downsample(points, 1000), points);
});

test("ticks are round, within the range, and few", () => {
  assert.deepEqual(ticks(0, 400, 4), [0, 100, 200, 300, 400]);
  assert.deepEqual(ticks(0.03, 0.09, 3).map(numberText), ["0.04", "0.06", "0.08"]);
  assert.deepEqual(ticks(1, 1, 4), [1]);
  assert.deepEqual(logTicks(0.01, 10, 4).map(numberText), ["0.01", "0.1", "1", "10"]);
  assert.deepEqual(logTicks(0.09, 0.6, 3).map(numberText), ["0.1", "0.2", "0.5"]);
});

test("numbers are formatted briefly", () => {
  assert.deepEqual([0.012345, 1.5e-5, 12.345, 0, NaN].map(numberText), ["0.0123", "1.5e-5", "12.3", "0", "–"]);
  assert.deepEqual([7, 750, 3723, null].map(durationText), ["0:07", "12:30", "1:02:03", "–"]);
  assert.deepEqual([850.4, 11500, 0].map(memoryText), ["850 MB", "11.2 GB", "–"]);
  assert.equal(valueAt([[1, 5], [4, 6]], 3), 5);
  assert.equal(valueAt([[2, 5]], 1), undefined);
});

test("the query distribution is formatted from noise to clean", () => {
  assert.equal(queryText([[1, 0.041], [0.9278, 0.0949], [0.0089, 0.5]]), "1: 4 % · 0.93: 9 % · 0.0089: 50 %");
  assert.equal(queryText([]), "");
});

test("walk yields nodes of subgraphs with the execution id by which nodeOf finds them", () => {
  const inner = { id: 3 };
  const middle = { id: 2, subgraph: { nodes: [inner] } };
  const root = { nodes: [{ id: 1, subgraph: { nodes: [middle] } }, { id: 4 }] };
  assert.equal(nodeOf(root, "1:2:3"), inner);
  assert.equal(nodeOf(root, 4), root.nodes[1]);
  assert.equal(nodeOf(root, "4:1"), undefined);
  assert.equal(nodeOf(root, "9"), undefined);
  assert.deepEqual([...walk(root)].map(([id]) => id), ["1", "1:2", "1:2:3", "4"]);
  for (const [id, node] of walk(root)) assert.equal(nodeOf(root, id), node);
});

test("a widget's value is the node's own only where no link provides it", () => {
  const widgets = [{ name: "name", value: "run" }];
  assert.equal(ownValue({ widgets, inputs: [{ widget: { name: "name" }, link: null }] }, "name"), "run");
  assert.equal(ownValue({ widgets, inputs: [{ widget: { name: "name" }, link: 5 }] }, "name"), undefined);
});

test("texts are in the page's language, and in English without a translation", () => {
  load({ ja: { danceopd: { loss: "損失" } } }, "ja");
  assert.equal(t("loss"), "損失");
  assert.equal(t("memory"), "memory");
  load({}, "fr");
  assert.equal(t("loss"), "loss");
});

test("a sentence with values is in the page's language, its values where that puts them", () => {
  const own = { "encoding the bucket of '{route}'": "「{route}」", "{done} of {total}": "{total} / {done}" };
  load({ ja: { danceopd: { whole: "全" }, danceopdSentences: own } }, "ja-JP");
  assert.equal(sentence("encoding the bucket of 'a $1 (b)'"), "「a $1 (b)」");
  assert.equal(sentence("3 of 5"), "5 / 3");
  assert.equal(sentence("whole"), "全");
  assert.equal(sentence("nothing known"), "nothing known");
  load({}, "en");
  assert.equal(sentence("3 of 5"), "3 of 5");
});

test("a fault holds back the trainers that need its node, and those only", () => {
  const prompt = {
    1: { class_type: "Bucket", inputs: { text: "x" } },
    2: { class_type: "Routes", inputs: { bucket: ["1", 0] } },
    3: { class_type: "Train", inputs: { routes: ["2", 0], sizes: [1, 2, 3] } },
    4: { class_type: "Train", inputs: {} },
    5: { class_type: "Compare", inputs: { lora: ["3", 0] } },
  };
  assert.deepEqual(heldBack(prompt, "Train", ["1"]), ["3"]);
  assert.deepEqual(heldBack(prompt, "Train", [4]), ["4"]);
  assert.deepEqual(heldBack(prompt, "Train", ["5"]), []);
});

test("a fault is told once, in the words of the node", () => {
  const own = ["content", "content.file"].map((name) => ({ message: "Invalid", details: `${name} - file: no prompt` }));
  const other = { message: "Required input is missing", details: "model" };
  assert.equal(faultText({ 1: { errors: own } }, (id) => `node ${id}`), "node 1: file: no prompt");
  assert.equal(faultText({ 2: { errors: [other] } }, (id) => id), "2: Required input is missing: model");
});

test("the list of CSV files is what the server told", () => {
  const file = { required: { file: ["COMBO", { options: ["a.csv", "b.csv"] }] } };
  const content = { options: [{ key: "lines", inputs: { required: {} } }, { key: "CSV file", inputs: file }] };
  const widget = { name: "content.file", options: { values: ["a.csv"] } };
  refresh({ DanceOPD_Bucket: { input: { required: { content: ["X", content] } } } }, [{ widgets: [widget] }, {}]);
  assert.deepEqual(widget.options.values, ["a.csv", "b.csv"]);
});

test("the name of a run is the name of its LoRA without the ending", () => {
  assert.deepEqual([" run ", "run.SAFETENSORS", "a.b"].map(runName), ["run", "run", "a.b"]);
});

test("a shipped note and its titles are in the page's language, and a person's own workflow is left alone", () => {
  const graph = () => ({
    nodes: [
      { type: "MarkdownNote", title: "About", widgets: [{ value: "# One\n\n- two" }] },
      { type: "MarkdownNote", title: "My notes", widgets: [{ value: "# One\nmine" }] },
      { type: "KSampler", title: "LoRA 1" },
    ],
    groups: [{ title: "Look" }],
  });
  load({ zh: { danceopdTemplates: { "# One": "# 一", "- two": "- 二", About: "关于", Look: "查看" } } }, "zh");
  const own = graph();
  translateTemplate(own);
  assert.deepEqual(own.nodes.map(({ title }) => title), ["关于", "My notes", "LoRA 1"]);
  assert.equal(own.nodes[0].widgets[0].value, "# 一\n\n- 二");
  assert.equal(own.nodes[1].widgets[0].value, "# One\nmine");
  assert.equal(own.groups[0].title, "查看");
  const foreign = graph();
  foreign.nodes.shift();
  translateTemplate(foreign);
  assert.equal(foreign.groups[0].title, "Look");
  load({}, "en");
  const english = graph();
  translateTemplate(english);
  assert.deepEqual(english, graph());
});

test("sockets inside a dynamic combo are named in the page's language, and what a person named stays", () => {
  const inputs = { routes_field1: { name: "教师 1" }, routes: { name: "路由" } };
  load({ zh: { nodeDefs: { Routes: { inputs } } } }, "zh");
  const node = {
    comfyClass: "Routes",
    inputs: [{ name: "routes.field1", label: "field1" }, { name: "routes" }, { name: "routes.bucket1", label: "bucket1" }],
    widgets: [{ name: "routes", callback: () => node.inputs.push({ name: "routes.field1", label: "mine" }) }],
  };
  nameSockets(node);
  assert.deepEqual(node.inputs.map(({ label }) => label), ["教师 1", undefined, "bucket1"]);
  followSockets(node);
  node.widgets[0].callback();
  assert.deepEqual([node.inputs[3].label, node.inputs[3].localized_name], ["mine", "教师 1"]);
  load({}, "en");
});

function trainNode() {
  const values = { rollout_steps: 12, k: 1, bias: "high", steps: 5, quality: "custom" };
  const node = { widgets: Object.entries(values).map(([name, value]) => ({ name, value })) };
  const presets = presetsOf({ input: { optional: { quality: [["fast"], { presets: {
    fast: { rollout_steps: 8, k: 1, bias: "low" }, paper: { rollout_steps: 16, k: 1, bias: "low" },
  } }] } } });
  followPresets(node, presets);
  return {
    set(name, value) {
      const widget = node.widgets.find((widget) => widget.name === name);
      widget.value = value;
      widget.callback?.(value);
    },
    get: () => Object.fromEntries(node.widgets.map(({ name, value }) => [name, value])),
  };
}

test("a chosen preset writes its widgets, and editing one of them makes it custom", () => {
  const node = trainNode();
  node.set("quality", "fast");
  assert.deepEqual(node.get(), { rollout_steps: 8, k: 1, bias: "low", steps: 5, quality: "fast" });
  node.set("quality", "paper");
  node.set("steps", 9);
  node.set("k", 1); // as it was
  assert.deepEqual(node.get(), { rollout_steps: 16, k: 1, bias: "low", steps: 9, quality: "paper" });
  node.set("bias", "mid");
  assert.deepEqual(node.get(), { rollout_steps: 16, k: 1, bias: "mid", steps: 9, quality: "custom" });
  node.set("rollout_steps", 8); // stays custom
  assert.equal(node.get().quality, "custom");
  assert.deepEqual(presetsOf(undefined), {});
});

test("advanced widgets take no room until they are shown, by the button in the title", () => {
  const name = { name: "name" };
  const seed = { name: "seed", options: { advanced: true } };
  const node = {
    widgets: [name, seed],
    buttons: [],
    showAdvanced: false,
    isWidgetVisible: (widget) => !widget.hidden,
    addTitleButton(button) { this.buttons.push(button); },
    toggleAdvanced() { this.showAdvanced = !this.showAdvanced; },
    onTitleButtonClick: (button) => { clicked = button.name; },
  };
  let clicked = "";
  hideAdvanced(node);
  assert.deepEqual(node.getLayoutWidgets(), [name]);
  node.onTitleButtonClick(node.buttons[0]);
  assert.deepEqual(node.getLayoutWidgets(), [name, seed]);
  node.onTitleButtonClick({ name: "other" });
  assert.equal(clicked, "other");
  seed.hidden = true;
  assert.deepEqual(node.getLayoutWidgets(), [name]);
  assert.ok(node.hasAdvancedWidgets());
  assert.ok(hasAdvanced({ input: { required: { kind: ["C", { options: [{ inputs: { optional: { a: ["INT", { advanced: true }] } } }] }] } } }));
  assert.ok(!hasAdvanced({ input: { required: { a: ["INT", { advanced: false }] } } }));
});

test("a template is shown whole where that is readable, else its start, and only once", () => {
  const node = (x, y, width, height) => ({ pos: [x, y], size: [width, height] });
  const graph = (...nodes) => ({ nodes, extra: { danceopd: { api: "quickstart", start: true } } });
  const small = graph(node(-100, 50, 700, 300));
  const { scale, offset } = firstView(small, [1600, 900]);
  assert.equal(scale, 1);
  assert.deepEqual(offset, [180, 80]); // left of its first node, and the top of its title, beside and under the bars
  assert.equal(firstView(small, [1600, 900]), null);
  const wide = firstView(graph(node(0, 0, 200, 200), node(4000, 0, 200, 200)), [1600, 900]);
  assert.equal(wide.scale, 0.7);
  assert.ok(Math.abs(wide.offset[0] - 80 / 0.7) < 1e-9);
  const between = firstView({ ...graph(node(0, 0, 10, 10)), groups: [node(0, 0, 1875, 100)] }, [1600, 900]);
  assert.equal(between.scale, 0.8);
  assert.equal(firstView({ nodes: [], extra: {} }, [1600, 900]), null);
});

test("the templates of this pack are listed in order, and no others are touched", () => {
  const lists = { danceopd: ["02 b", "01 Quick start - a"], other: ["z", "a"] };
  assert.deepEqual(inOrder(lists), { danceopd: ["01 Quick start - a", "02 b"], other: ["z", "a"] });
  assert.equal(inOrder(null), null);
});

test("sockets have colours unless a palette has its own", () => {
  const table = { IMAGE: "#64b5f6" };
  assert.match(colourSockets([table]), /--color-datatype-DANCEOPD_FIELD: #/);
  const ours = table.DANCEOPD_FIELD;
  assert.match(ours, /^#/);
  Object.assign(table, { DANCEOPD_FIELD: "" }); // by a palette that does not know it
  assert.equal(table.DANCEOPD_FIELD, ours);
  table.DANCEOPD_FIELD = "#123456";
  assert.equal(table.DANCEOPD_FIELD, "#123456");
  assert.equal(table.IMAGE, "#64b5f6");
});

test("a table is uploaded by a button that only a bucket of tables shows, and is chosen there", async () => {
  const content = { name: "content", value: "lines of text" };
  const file = { name: "content.file", value: "none", options: { values: ["none", "old.csv"] } };
  const node = {
    widgets: [content],
    addWidget(type, name, value, callback, options) {
      this.widgets.push({ type, name, value, callback, options });
      return this.widgets.at(-1);
    },
  };
  const other = { widgets: [{ name: "content.file", value: "old.csv", options: { values: [] } }] };
  const picked = [];
  const show = offerUpload(node, "Upload", {
    pick: async (accept) => { picked.push(accept); return picked.length > 1 ? null : { name: "new.csv" }; },
    upload: async (chosen) => `${chosen.name}.1`,
    chosen: (name) => choose(node, name, [node, other]),
  });
  const button = node.widgets.at(-1);
  assert.deepEqual([button.hidden, button.serialize, button.options.serialize], [true, false, false]);
  content.value = "CSV file";
  node.widgets.splice(1, 0, file);
  content.callback();
  assert.equal(button.hidden, false);
  await button.callback();
  assert.equal(file.value, "new.csv.1");
  assert.ok(file.options.values.includes("new.csv.1"));
  assert.ok(other.widgets[0].options.values.includes("new.csv.1"));
  assert.equal(other.widgets[0].value, "old.csv");
  await button.callback(); // nothing picked
  assert.equal(file.value, "new.csv.1");
  content.value = "embedded world";
  show();
  assert.equal(button.hidden, true);
});
