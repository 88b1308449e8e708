// Collects a run's losses and validation errors as series, and prepares them for plotting. No page and no server.
//
// A series is { routes: Map name -> { loss: [[update, value]], error: [[update, value]] }, last: update }.
// Points are ordered by update; values are finite.

export function emptySeries() {
  return { routes: new Map(), last: 0 };
}

// Adds a response of GET /danceopd/runs/{run}/history, a part of it: a loss is null where the route was not trained.
export function addHistory(series, history) {
  const updates = history.updates ?? [];
  for (const [route, losses] of Object.entries(history.losses ?? {})) {
    losses.forEach((loss, i) => addPoint(routeOf(series, route).loss, updates[i], loss));
  }
  for (const { update, ...errors } of history.validation ?? []) {
    for (const [route, error] of Object.entries(errors)) addPoint(routeOf(series, route).error, update, error);
  }
  series.last = updates.at(-1) ?? series.last;
}

export function copyOf(series) {
  const routes = [...series.routes].map(([name, { loss, error }]) => [name, { loss: [...loss], error: [...error] }]);
  return { routes: new Map(routes), last: series.last };
}

// Adds an event to the series. Returns whether the history is needed: updates are missing, or the run has restarted.
export function addEvent(series, event) {
  const gap = event.update > series.last + 1 || event.update < series.last;
  for (const [route, loss] of Object.entries(event.losses ?? {})) {
    const points = routeOf(series, route).loss;
    // An event repeats the last loss of routes that were not trained in this update.
    if (points.at(-1)?.[1] !== loss) addPoint(points, event.update, loss);
  }
  for (const [route, error] of Object.entries(event.start ?? {})) {
    const points = routeOf(series, route).error;
    if (Number.isFinite(error) && points[0]?.[0] !== 0) points.unshift([0, error]);
  }
  for (const [route, error] of Object.entries(event.validation ?? {})) {
    const points = routeOf(series, route).error;
    // It also repeats the last validation until the next one.
    if (points.at(-1)?.[1] !== error) addPoint(points, event.update, error);
  }
  series.last = event.update;
  return gap;
}

function routeOf(series, name) {
  if (!series.routes.has(name)) series.routes.set(name, { loss: [], error: [] });
  return series.routes.get(name);
}

function addPoint(points, update, value) {
  const finite = Number.isFinite(update) && Number.isFinite(value);
  if (finite && !(points.at(-1)?.[0] >= update)) points.push([update, value]);
}

const NEAR = 0.05; // as in runs/best.py

// The largest first validation error of the routes.
export function farthest(routes) {
  return Math.max(0, ...[...routes.values()].map(({ error }) => error[0]?.[1] ?? 0));
}

// The validation errors of a route in percent of its first one, that of the start where it is known. Those of a route
// that begins at its teacher, of which any percentage would be endless, are in percent of the farthest one's.
export function percents(points, most = 0) {
  const first = points[0]?.[1];
  const whole = first >= NEAR * most ? first : most;
  return whole > 0 ? points.map(([update, value]) => [update, (100 * value) / whole]) : [];
}

// Trailing mean over up to `width` points.
export function runningMean(points, width) {
  let sum = 0;
  return points.map(([update, value], i) => {
    sum += value - (i >= width ? points[i - width][1] : 0);
    return [update, sum / Math.min(i + 1, width)];
  });
}

// At most `limit` points: means of consecutive blocks, each at the last update of its block.
export function downsample(points, limit) {
  const size = Math.ceil(points.length / limit);
  if (size <= 1) return points;
  const means = [];
  for (let first = 0; first < points.length; first += size) {
    const block = points.slice(first, first + size);
    means.push([block.at(-1)[0], block.reduce((sum, point) => sum + point[1], 0) / block.length]);
  }
  return means;
}

// The value at the last point up to `update`.
export function valueAt(points, update) {
  let value;
  for (const point of points) {
    if (point[0] > update) break;
    value = point[1];
  }
  return value;
}
