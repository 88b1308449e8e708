// The numbers of a run, and how they are told. Pure: no page, no server.
//
// A series is { routes: Map name -> { loss: [[update, value]], error: [[update, value]] }, last: update }.
// Points are in the order of their updates; values are finite.

export function emptySeries() {
  return { routes: new Map(), last: 0 };
}

// As GET /danceopd/runs/{run}/history tells it: null where an update was of other routes.
export function seriesOf(history) {
  const series = emptySeries();
  const updates = history.updates ?? [];
  for (const [route, losses] of Object.entries(history.losses ?? {})) {
    losses.forEach((loss, i) => put(routeOf(series, route).loss, updates[i], loss));
  }
  for (const { update, ...errors } of history.validation ?? []) {
    for (const [route, error] of Object.entries(errors)) put(routeOf(series, route).error, update, error);
  }
  series.last = updates.at(-1) ?? 0;
  return series;
}

// Takes in an event; answers whether updates lie between it and what is known, or the run has begun anew.
export function addEvent(series, event) {
  const gap = event.update > series.last + 1 || event.update < series.last;
  for (const [route, loss] of Object.entries(event.losses ?? {})) {
    const points = routeOf(series, route).loss;
    // An event repeats the last loss of routes that had no turn.
    if (points.at(-1)?.[1] !== loss) put(points, event.update, loss);
  }
  for (const [route, error] of Object.entries(event.validation ?? {})) {
    const points = routeOf(series, route).error;
    // It also repeats the last validation until there is another.
    if (points.at(-1)?.[1] !== error) put(points, event.update, error);
  }
  series.last = event.update;
  return gap;
}

function routeOf(series, name) {
  if (!series.routes.has(name)) series.routes.set(name, { loss: [], error: [] });
  return series.routes.get(name);
}

function put(points, update, value) {
  const sound = Number.isFinite(update) && Number.isFinite(value);
  if (sound && !(points.at(-1)?.[0] >= update)) points.push([update, value]);
}

// The mean of each point and those before it, up to `width` of them.
export function runningMean(points, width) {
  let sum = 0;
  return points.map(([update, value], i) => {
    sum += value - (i >= width ? points[i - width][1] : 0);
    return [update, sum / Math.min(i + 1, width)];
  });
}

// At most `most` of the points, each the mean of its neighbours: a canvas has no room for more.
export function thinned(points, most) {
  const size = Math.ceil(points.length / most);
  if (size <= 1) return points;
  const found = [];
  for (let first = 0; first < points.length; first += size) {
    const part = points.slice(first, first + size);
    found.push([part.at(-1)[0], part.reduce((sum, point) => sum + point[1], 0) / part.length]);
  }
  return found;
}

// The value at the last point that is not after `update`.
export function valueAt(points, update) {
  let value;
  for (const point of points) {
    if (point[0] > update) break;
    value = point[1];
  }
  return value;
}

// Round numbers between low and high, some `count` of them: 1, 2 or 5 times a power of ten apart.
export function ticks(low, high, count) {
  if (!(high > low)) return [low];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => power * factor >= rough);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9) + 0; i * step <= high + step * 1e-9; i += 1) found.push(i * step);
  return found;
}

// Marks of a logarithmic axis: powers of ten, with 2 and 5 times them where there is room for `count`.
export function logTicks(low, high, count) {
  for (const factors of [[1, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]]) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
      found.push(...factors.map((factor) => factor * 10 ** power).filter((mark) => mark >= low && mark <= high));
    }
    if (found.length <= count || factors.length === 1) return found.length ? found : [low];
  }
  return [];
}

// 0.0123, 1.5e-5, 12.3: three figures at most.
export function brief(value) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e5) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

// 0:07, 12:30, 1:02:03.
export function duration(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return "–";
  const whole = Math.round(seconds);
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

// 850 MB, 11.2 GB.
export function memory(megabytes) {
  if (!(megabytes > 0)) return "–";
  return megabytes < 1000 ? `${Math.round(megabytes)} MB` : `${(megabytes / 1024).toFixed(1)} GB`;
}

// Where on the path the teachers are asked: [sigma, share] from noise to clean, as "0.98 4 % · 0.93 9 %".
export function askedText(parts) {
  return parts.map(([sigma, share]) => `${Number(sigma.toPrecision(2))} ${Math.round(100 * share)} %`).join(" · ");
}
