// Tests of what the panel shows of a run's results, without a page. `node --test` runs it next to a copy of web/danceopd/.

import assert from "node:assert/strict";
import { test } from "node:test";

import { percentLimits } from "./danceopd/chart_panes.js";
import { Estimates } from "./danceopd/estimates.js";
import { percentText, sizeText } from "./danceopd/format.js";
import { load } from "./danceopd/i18n.js";
import { addLoader, freePlace, loaderFor } from "./danceopd/load_lora.js";
import { reasonText, routeRows } from "./danceopd/panel_texts.js";
import { translateReports, verdictText } from "./danceopd/reports.js";
import { Run } from "./danceopd/run.js";
import { addEvent, addHistory, emptySeries, farthest, percents } from "./danceopd/series.js";
import { columnLabel, compared, nextColumn, stripTable } from "./danceopd/strip_data.js";
import { endToast } from "./danceopd/toasts.js";
import { chosen } from "./danceopd/wide.js";

test("validation is in percent of the start, which an event or the history tells", () => {
  const told = emptySeries();
  addEvent(told, { update: 0, losses: {}, validation: null, start: { a: 0.5, b: null, c: 0 } });
  addEvent(told, { update: 1, losses: {}, validation: { a: 0.25, b: 1, c: 1 }, start: { a: 0.5, b: null, c: 0 } });
  assert.deepEqual(percents(told.routes.get("a").error), [[0, 100], [1, 50]]);
  assert.deepEqual(percents(told.routes.get("b").error), [[1, 100]]); // of the first one known
  assert.deepEqual(percents(told.routes.get("c").error), []);
  assert.equal(farthest(told.routes), 1);
  assert.deepEqual(percents([[0, 0.01], [5, 0.2]], 1), [[0, 1], [5, 20]]); // it begins at its teacher
  assert.deepEqual(percents([[0, 0.5], [5, 0.2]], 1), [[0, 100], [5, 40]]);
  const read = emptySeries();
  addHistory(read, { updates: [1], losses: {}, validation: [{ update: 0, a: 0.5 }, { update: 1, a: 0.25 }] });
  addEvent(read, { update: 1, losses: {}, validation: { a: 0.25 }, start: { a: 0.5 } });
  assert.deepEqual(read.routes.get("a"), told.routes.get("a"));
});

test("sizes and percents are formatted briefly", () => {
  assert.deepEqual([950, 34567890, 1.2e9, 5e12].map(sizeText), ["950 B", "35 MB", "1.2 GB", "5000 GB"]);
  assert.deepEqual([7.34, 41.2, NaN].map(percentText), ["7.3 %", "41 %", "–"]);
});

const strip = {
  rows: [
    { prompt: "a star", route: "draw", source: null, teacher: "t0" },
    { prompt: "make it red", route: "edit", source: "s1", teacher: null },
  ],
  columns: [{ update: 0, pictures: ["a0", "a1"] }, { update: 25, pictures: ["b0", null] }],
};

test("the pictures over time are a table: source, teacher, updates", () => {
  const { rows, columns } = stripTable(strip, null);
  assert.deepEqual(rows.map(({ prompt }) => prompt), ["a star", "make it red"]);
  assert.deepEqual(columns.map(({ pictures }) => pictures), [[null, "s1"], ["t0", null], ["a0", "a1"], ["b0", null]]);
  const labels = (running) => columns.map((_, i) => columnLabel(columns, i, running));
  assert.deepEqual(labels(true), ["source", "teacher", "0", "now · 25"]);
  assert.deepEqual(labels(false), ["source", "teacher", "0", "25"]);
  const plain = { rows: strip.rows.map((row) => ({ ...row, source: null, teacher: null })), columns: strip.columns };
  assert.deepEqual(stripTable(plain, null).columns.map(({ update }) => update), [0, 25]);
});

test("without pictures over time, those of the last validation are the table", () => {
  const { rows, columns } = stripTable(null, { update: 41, pictures: [{ prompt: "a star", url: "x/000040-00.png" }] });
  assert.deepEqual([rows[0].prompt, columns], ["a star", [{ kind: "update", update: 40, pictures: ["x/000040-00.png"] }]]);
  assert.deepEqual(stripTable(null, null), { rows: [], columns: [] });
});

test("the newest picture is compared with the source or the earliest, and the keys skip what has no picture", () => {
  const { columns } = stripTable(strip, null);
  assert.deepEqual([compared(columns, 0), compared(columns, 1)], [2, 0]);
  assert.deepEqual([nextColumn(columns, 1, 0, 1), nextColumn(columns, 1, 2, 1), nextColumn(columns, 0, 1, -1)], [2, 2, 1]);
});

test("a toast tells of an end that happens on this page, once", () => {
  const saved = { lora: "x.safetensors", seconds: 70 };
  const done = { run: "x", state: "done", saved, best: { update: 20, percent: 41.23 } };
  const toast = endToast("training", done);
  assert.equal(toast.summary, "x is trained");
  assert.equal(toast.detail, "saved as x.safetensors · trained in 1:10 · best at update 20: 41.2 % of the start");
  assert.equal(endToast(undefined, done), null);
  assert.equal(endToast("done", done), null);
  assert.equal(endToast("training", { run: "x", state: "training" }), null);
  assert.match(endToast("opening", { ...done, finished_before: true }).summary, /finished already/);
  assert.equal(endToast("opening", { run: "x", state: "failed", message: "no", saved: null }).severity, "error");
});

// A graph of litegraph's shape: nodes by id, links by number.
function graphOf(nodes, links) {
  const graph = {
    nodes,
    links: Object.fromEntries(links.map(([origin_id, origin_slot], i) => [i, { origin_id, origin_slot }])),
    getNodeById: (id) => nodes.find((node) => node.id === id),
    add: (node) => nodes.push(node),
  };
  return graph;
}

const input = (name, link) => ({ name, link });

test("the LoRA is loaded by the stock node from the MODEL that was trained, and in the embedded world by its own", () => {
  const wired = [];
  const source = { id: 1, type: "UNETLoader", connect: (...link) => wired.push(link), pos: [0, 0], size: [1, 1] };
  const train = { id: 4, type: "Train", inputs: [input("routes", 2)], pos: [0, 0], size: [400, 900] };
  const native = graphOf([
    source, { id: 2, type: "DanceOPD_NativeModel", inputs: [input("clip", null), input("model", 0)] },
    { id: 3, type: "Routes", inputs: [input("field", 1)] }, train,
  ].map((node) => ({ pos: [0, 0], size: [1, 1], ...node, connect: source.connect })), [[1, 0], [2, 0], [3, 0]]);
  const folder = (value) => graphOf([
    { id: 2, type: "DanceOPD_LoadModel", widgets: [{ value }] }, { id: 3, type: "Routes", inputs: [input("field", 1)] }, train,
  ], [[1, 0], [2, 0], [3, 0]]);
  assert.deepEqual(loaderFor(folder("shapes"), train), { type: "DanceOPD_LoadLora", from: null });
  assert.equal(loaderFor(folder("flux"), train).type, "LoraLoaderModelOnly");
  const made = addLoader(native, native.nodes[3], "new.safetensors", (type) => ({
    type, size: [270, 80], inputs: [input("model", null)], widgets: [{ name: "lora_name", options: { values: ["old"] } }],
  }));
  assert.equal(made.type, "LoraLoaderModelOnly");
  assert.equal(made.widgets[0].value, "new.safetensors");
  assert.deepEqual(made.widgets[0].options.values, ["old", "new.safetensors"]);
  assert.deepEqual(wired, [[0, made, 0]]);
});

test("an added node covers no other", () => {
  const nodes = [{ pos: [0, 0], size: [400, 900] }, { pos: [440, 0], size: [300, 300] }];
  const [x, y] = freePlace({ nodes }, nodes[0], [270, 80]);
  const apart = ([a, b], [w, h]) => x >= a + w || x + 270 <= a || y >= b + h || y + 80 <= b;
  assert.ok(nodes.every(({ pos, size }) => apart(pos, size)), `${x}, ${y}`);
});

test("a server that estimates nothing is asked once, and an answer is for the prompt that was asked", async () => {
  const told = [];
  const run = { estimated: (...texts) => told.push(texts) };
  let status = 200;
  let asked = 0;
  const client = { estimate: async () => ({ status, ok: status === 200, text: `answer ${(asked += 1)}`, reason: "" }) };
  let prompt = { 7: { inputs: { steps: 1 } } };
  const estimates = new Estimates(() => [["7", run]], async () => prompt, client);
  await estimates.now();
  await estimates.now();
  assert.deepEqual([told, asked], [[["answer 1", ""]], 1]);
  prompt = { 7: { inputs: { steps: 2 } } };
  status = 404;
  await estimates.now();
  assert.equal(estimates.offered, false);
});

test("a graph that is not ready has its reason on the panel, until the run begins", async () => {
  const run = new Run({});
  const client = { estimate: async () => ({ status: 200, ok: true, text: "", reason: "lora: 'x' is not in ComfyUI's folders" }) };
  await new Estimates(() => [["7", run]], async () => ({ 7: {} }), client).now();
  assert.equal(reasonText(run), "Not ready yet: lora: 'x' is not in ComfyUI's folders");
  run.event = { state: "opening" };
  assert.equal(reasonText(run), "");
});

test("a run asks for its pictures when there are new ones, and tells its views", async () => {
  const asked = [];
  const client = { history: async () => null, strip: async (run) => (asked.push(run), strip) };
  const run = new Run(client);
  let seen = 0;
  const end = run.listen(() => (seen += 1));
  const event = { run: "x", state: "training", update: 1, steps: 9, losses: { a: 1 }, pictures: [{ url: "p1" }] };
  run.update(event);
  run.update({ ...event, losses: { a: 2 } });
  run.update({ ...event, pictures: [{ url: "p2" }] });
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual(asked, ["x", "x"]);
  assert.equal(run.strip, strip);
  const before = seen;
  end();
  run.saved({ update: 3 });
  assert.deepEqual([seen, run.event.saved], [before, { update: 3 }]);
});

test("a watched route is told as such, and a trained one with its share", () => {
  const series = { last: 2, routes: new Map([
    ["a", { loss: [[1, 0.5]], error: [[0, 2], [2, 1]] }], ["w", { loss: [], error: [[0, 1], [2, 1.1]] }],
  ]) };
  const rows = (update) => routeRows({ series, event: { shares: { a: 0.75, w: 0 }, watched: ["w"], held_out: { a: 4 } } }, update);
  assert.deepEqual(rows(2).map(({ name, values }) => [name, ...values]), [
    ["75 % a", "50 % of start", "loss 0.5"], ["w", "110 % of start", "watched"],
  ]);
  assert.equal(rows(1)[0].values[0], "100 % of start");
  assert.deepEqual(rows(1).map(({ about }) => about), ["a: validated on 4 held-out prompts", "w"]);
});

test("the percent axis holds the start, and 0 unless nothing is near it", () => {
  assert.deepEqual(percentLimits([100, 40]), [0, 105]);
  assert.deepEqual(percentLimits([100, 90, 120]), [50, 126]);
});

test("the wide view shows the selected trainer, else the one before, else a running one", () => {
  const nodes = ["a", "b", "c"].map((name) => [name, { running: name === "b" }]);
  assert.equal(chosen(nodes, (node) => node === "c", "a")[0], "c");
  assert.equal(chosen(nodes, () => false, "a")[0], "a");
  assert.equal(chosen(nodes, () => false, undefined)[0], "b");
  assert.equal(chosen([], () => false, undefined), null);
});

test("the verdict of a report is in the page's language, whatever node shows it", () => {
  const sentences = {
    "healthy: {many} layers of rank {rank}": "健康：{many} 层，秩 {rank}",
    "{count} of {many} layers change{plural} nothing ({names})": "{many} 层中 {count} 层不变（{names}）",
  };
  load({ zh: { danceopdSentences: sentences } }, "zh");
  const [one, many] = ["1 of 20 layers changes nothing (a.b)", "2 of 20 layers change nothing (a, b)"];
  const keys = "\nkeys: 20 layers with ComfyUI's names\n\nhealthy: 20 layers of rank 4";
  const output = { text: [`my.safetensors: healthy: 20 layers of rank 4. ${one}. Something new${keys}`, "healthy: 1", 3] };
  translateReports(output);
  assert.deepEqual(output.text, [`my.safetensors: 健康：20 层，秩 4. 20 层中 1 层不变（a.b）. Something new${keys}`, "healthy: 1", 3]);
  assert.equal(verdictText(many), "20 层中 2 层不变（a, b）");
  translateReports({ images: [] });
  translateReports(undefined);
  load({}, "en");
  assert.equal(verdictText(`${one}. ${many}`), `${one}. ${many}`);
});
