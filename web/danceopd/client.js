// The server's HTTP API of runs, see docs/http-api.md. No page beyond ComfyUI's own client.

import { api } from "/scripts/api.js";

const TRAIN = "DanceOPD_Train";
const PAGE = 5000; // updates in one answer: a long history comes in parts

// The answer of a GET; null if it is refused.
export async function get(route) {
  const response = await api.fetchApi(route);
  return response.ok ? response.json() : null;
}

// The answer of a POST with its status; `error` holds why it was refused.
async function post(route, body = {}) {
  const headers = { "Content-Type": "application/json" };
  try {
    const response = await api.fetchApi(route, { method: "POST", headers, body: JSON.stringify(body) });
    return { status: response.status, ok: response.ok, ...(await response.json().catch(() => ({}))) };
  } catch (error) {
    return { status: 0, ok: false, error: String(error.message ?? error) };
  }
}

function of(run, what = "") {
  return `/danceopd/runs/${encodeURIComponent(run)}${what}`;
}

// The id of the running prompt that contains this Train node.
async function promptOf(id) {
  const queue = await get("/queue");
  return queue?.queue_running.find(([, , prompt]) => prompt[id]?.class_type === TRAIN)?.[1];
}

export const client = {
  run: (run) => get(of(run)),
  history: (run, after) => get(of(run, `/history?after=${after}&limit=${PAGE}`)),
  strip: (run) => get(of(run, "/strip")),
  publish: (run, update) => post(of(run, "/publish"), { update }),
  openFolder: (run) => post(of(run, "/open")),
  storedRuns: () => get("/danceopd/stored-runs"),
  remove: (run) => post(of(run, "/delete")),
  estimate: (prompt, node) => post("/danceopd/estimate", { prompt, node }),

  async stop(id) {
    const answer = await post("/danceopd/stop", { node: id });
    return answer.ok && answer.stopping;
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
