// Draws a run on a canvas: the validation of each route in percent of the start above, its loss (logarithmic) below.

import {
  LEFT, RIGHT, drawAxis, drawLine, drawLosses, drawMarker, drawUpdateAxis, drawValidation, percentLimits,
} from "./chart_panes.js";
import { fill, t } from "./i18n.js";
import { farthest, percents } from "./series.js";

const TITLE = 18;
const FONT = "10px Inter, system-ui, sans-serif";
const BEST = "#d9b44a";

// `event`: the run's last status; `hovered`: the update under the pointer, or null.
export function drawChart(canvas, series, event, hovered) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width || !height) return;
  const context = sharpContext(canvas, width, height);
  if (!series.last && !validated(series)) return;
  const last = lastOf(series, event);
  const xOf = (update) => LEFT + (update / last) * (width - LEFT - RIGHT);
  const pen = { context, colour: getComputedStyle(canvas).color, width, last, xOf };
  const [bottom, split] = [height - 16, validated(series)];
  const middle = split ? Math.round(bottom * (series.last ? 0.62 : 1)) : 0;
  if (split) drawPercents(pen, series, event, [TITLE, middle]);
  if (series.last) drawLossPane(pen, series, [split ? middle + TITLE + 6 : TITLE, bottom]);
  drawUpdateAxis(pen, height);
  if (hovered !== null) {
    context.globalAlpha = 0.5;
    drawLine(context, pen.colour, [[xOf(hovered), TITLE], [xOf(hovered), bottom]], 1);
    context.globalAlpha = 1;
  }
}

// The update at the canvas coordinate `x`.
export function updateAt(canvas, series, event, x) {
  const update = Math.round(((x - LEFT) / (canvas.clientWidth - LEFT - RIGHT)) * lastOf(series, event));
  return Math.min(Math.max(update, 0), series.last);
}

function lastOf(series, event) {
  return Math.max(event?.steps || 0, series.last, 1);
}

// Whether there is more than the start, or nothing else to show.
function validated(series) {
  const routes = [...series.routes.values()];
  return routes.some(({ error }) => error.some(([update]) => update > 0));
}

// The resolution follows the zoom of the graph, so that a zoomed chart stays sharp.
function sharpContext(canvas, width, height) {
  const zoom = (canvas.getBoundingClientRect().width / width) * window.devicePixelRatio;
  const scale = Math.min(4, Math.max(1, zoom));
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  context.font = FONT;
  return context;
}

function drawPercents(pen, series, event, [top, bottom]) {
  const lines = [...series.routes].map(([name, { error }]) => [name, percents(error, farthest(series.routes))]);
  const values = lines.flatMap(([, points]) => points.map((point) => point[1]));
  const best = event?.best?.update;
  const title = t("validation, % of the start");
  const yOf = drawAxis(pen, title, values, [top, bottom], { limits: percentLimits(values) });
  pen.context.globalAlpha = 0.5;
  drawLine(pen.context, pen.colour, [[LEFT, yOf(100)], [pen.width - RIGHT, yOf(100)]], 1, [1, 3]);
  pen.context.globalAlpha = 1;
  lines.forEach(([name, points], i) => drawValidation(pen, points, yOf, i, event?.watched?.includes(name)));
  if (best === undefined) return;
  drawMarker(pen, BEST, pen.xOf(best), [top, bottom], fill(t("best at update {update}"), { update: best }), title);
}

function drawLossPane(pen, series, [top, bottom]) {
  const lines = [...series.routes.values()].map(({ loss }) => loss);
  const values = lines.flat().map((point) => point[1]).filter((value) => value > 0);
  const yOf = drawAxis(pen, t("loss"), values, [top, bottom], { logarithmic: true });
  lines.forEach((points, i) => drawLosses(pen, points, yOf, i));
}
