// Draws a run on a canvas: the loss of each route (logarithmic) above, its validation error (linear) below.

import { logTicks, numberText, ticks } from "./format.js";
import { t } from "./i18n.js";
import { downsample, runningMean } from "./series.js";

const COLOURS = ["#4c9be8", "#f0954b", "#54b884", "#e2699b", "#a78bea", "#c9a92c", "#3fb8c4", "#dd6a5b"];
const LEFT = 44;
const RIGHT = 10;
const TITLE = 17;
const FONT = "10px Inter, system-ui, sans-serif";

export function colourOf(index) {
  return COLOURS[index % COLOURS.length];
}

// `steps`: the right end of the axis. `hovered`: the update under the pointer, or null.
export function drawChart(canvas, series, steps, hovered) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width || !height) return;
  // The resolution follows the zoom of the graph, so that a zoomed chart stays sharp.
  const zoom = (canvas.getBoundingClientRect().width / width) * window.devicePixelRatio;
  const scale = Math.min(4, Math.max(1, zoom));
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  if (!series.last) return;
  context.font = FONT;
  const colour = getComputedStyle(canvas).color;
  const routes = [...series.routes.values()];
  const validated = routes.some((route) => route.error.length);
  const last = Math.max(steps || 0, series.last, 1);
  const bottom = height - 16;
  const middle = validated ? Math.round(bottom * 0.55) : bottom;
  const xOf = (update) => LEFT + (update / last) * (width - LEFT - RIGHT);

  drawPane(context, colour, t("loss"), routes.map((route) => route.loss), [TITLE, middle], xOf, width, true);
  if (validated) {
    const errors = routes.map((route) => route.error);
    drawPane(context, colour, t("validation error"), errors, [middle + TITLE + 6, bottom], xOf, width, false);
  }
  drawUpdateAxis(context, colour, last, xOf, height);
  if (hovered !== null) {
    context.globalAlpha = 0.5;
    drawLine(context, colour, [[xOf(hovered), TITLE], [xOf(hovered), bottom]], 1);
    context.globalAlpha = 1;
  }
}

// The update at the canvas coordinate `x`.
export function updateAt(canvas, series, steps, x) {
  const last = Math.max(steps || 0, series.last, 1);
  const update = Math.round(((x - LEFT) / (canvas.clientWidth - LEFT - RIGHT)) * last);
  return Math.min(Math.max(update, 0), series.last);
}

function drawPane(context, colour, title, lines, [top, bottom], xOf, width, logarithmic) {
  const values = lines.flat().map((point) => point[1]).filter((value) => value > 0 || !logarithmic);
  const tickCount = Math.max(2, Math.floor((bottom - top) / 20));
  const [low, high] = limits(values, logarithmic);
  const scaled = logarithmic ? Math.log : (value) => value;
  const yOf = (value) => bottom - ((scaled(value) - scaled(low)) / (scaled(high) - scaled(low))) * (bottom - top);

  context.textBaseline = "middle";
  context.textAlign = "right";
  for (const tick of values.length ? (logarithmic ? logTicks : ticks)(low, high, tickCount) : []) {
    context.globalAlpha = 0.14;
    drawLine(context, colour, [[LEFT, yOf(tick)], [width - RIGHT, yOf(tick)]], 1);
    context.globalAlpha = 0.65;
    context.fillStyle = colour;
    context.fillText(numberText(tick), LEFT - 6, yOf(tick));
  }
  context.globalAlpha = 0.35;
  drawLine(context, colour, [[LEFT, bottom], [width - RIGHT, bottom]], 1);
  lines.forEach((points, index) => {
    const shown = downsample(points.filter((point) => point[1] > 0 || !logarithmic), Math.max(50, width));
    const position = ([update, value]) => [xOf(update), yOf(value)];
    if (!logarithmic) {
      context.globalAlpha = 1;
      drawLine(context, colourOf(index), shown.map(position), 1.75);
      drawDots(context, colourOf(index), shown.map(position), 2.25);
      return;
    }
    // Single losses are noisy, because their states are random: they are faint dots, and the running mean is the line.
    context.globalAlpha = 0.3;
    drawDots(context, colourOf(index), shown.map(position), 1.25);
    context.globalAlpha = 1;
    const mean = runningMean(shown, Math.max(1, Math.round(shown.length / 12)));
    drawLine(context, colourOf(index), mean.map(position), 1.75);
  });
  context.globalAlpha = 0.75;
  context.fillStyle = colour;
  context.textAlign = "left";
  context.textBaseline = "bottom";
  context.fillText(title, LEFT, top - 3);
  context.globalAlpha = 1;
}

function drawUpdateAxis(context, colour, last, xOf, height) {
  context.globalAlpha = 0.65;
  context.fillStyle = colour;
  context.textAlign = "center";
  context.textBaseline = "bottom";
  for (const tick of ticks(0, last, 4)) {
    if (Number.isInteger(tick)) context.fillText(String(tick), Math.min(xOf(tick), xOf(last) - 6), height);
  }
  context.globalAlpha = 1;
}

// The ends of the value axis, with a margin around the values.
function limits(values, logarithmic) {
  if (!values.length) return [1, 2];
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  if (logarithmic) return [low / 1.15, high * 1.15];
  const margin = (high - low) * 0.1 || Math.abs(high) * 0.1 || 1;
  return [Math.max(0, low - margin), high + margin];
}

function drawLine(context, colour, points, width) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.lineJoin = "round";
  context.beginPath();
  for (const [x, y] of points) context.lineTo(x, y);
  context.stroke();
}

function drawDots(context, colour, points, radius) {
  context.fillStyle = colour;
  for (const [x, y] of points) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fill();
  }
}
