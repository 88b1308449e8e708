// Draws a series on a canvas: loss of every route above (logarithmic), its validation error below.

import { brief, logTicks, runningMean, thinned, ticks } from "./series.js";
import { say } from "./words.js";

const COLOURS = ["#4c9be8", "#f0954b", "#54b884", "#e2699b", "#a78bea", "#c9a92c", "#3fb8c4", "#dd6a5b"];
const LEFT = 44;
const RIGHT = 10;
const TITLE = 17;
const FONT = "10px Inter, system-ui, sans-serif";

export function colourOf(number) {
  return COLOURS[number % COLOURS.length];
}

// `steps`: the right end of the axis. `at`: the update under the pointer, or null.
export function drawChart(canvas, series, steps, at) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width || !height) return;
  // A zoomed canvas is drawn with the pixels that it has on the screen.
  const zoom = (canvas.getBoundingClientRect().width / width) * window.devicePixelRatio;
  const scale = Math.min(4, Math.max(1, zoom));
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  if (!series.last) return;
  context.font = FONT;
  const ink = getComputedStyle(canvas).color;
  const routes = [...series.routes.values()];
  const validated = routes.some((route) => route.error.length);
  const last = Math.max(steps || 0, series.last, 1);
  const bottom = height - 16;
  const middle = validated ? Math.round(bottom * 0.55) : bottom;
  const across = (update) => LEFT + (update / last) * (width - LEFT - RIGHT);

  drawPane(context, ink, say("loss"), routes.map((route) => route.loss), [TITLE, middle], across, width, true);
  if (validated) {
    const errors = routes.map((route) => route.error);
    drawPane(context, ink, say("validation error"), errors, [middle + TITLE + 6, bottom], across, width, false);
  }
  drawUpdates(context, ink, last, across, height);
  if (at !== null) {
    context.globalAlpha = 0.5;
    line(context, ink, [[across(at), TITLE], [across(at), bottom]], 1);
    context.globalAlpha = 1;
  }
}

// The update under a pointer at `x` of the canvas.
export function updateAt(canvas, series, steps, x) {
  const last = Math.max(steps || 0, series.last, 1);
  const update = Math.round(((x - LEFT) / (canvas.clientWidth - LEFT - RIGHT)) * last);
  return Math.min(Math.max(update, 0), series.last);
}

function drawPane(context, ink, title, lines, [top, bottom], across, width, logarithmic) {
  const values = lines.flat().map((point) => point[1]).filter((value) => value > 0 || !logarithmic);
  const room = Math.max(2, Math.floor((bottom - top) / 20));
  const [low, high] = limits(values, logarithmic);
  const along = logarithmic ? Math.log : (value) => value;
  const down = (value) => bottom - ((along(value) - along(low)) / (along(high) - along(low))) * (bottom - top);

  context.textBaseline = "middle";
  context.textAlign = "right";
  for (const mark of values.length ? (logarithmic ? logTicks : ticks)(low, high, room) : []) {
    context.globalAlpha = 0.14;
    line(context, ink, [[LEFT, down(mark)], [width - RIGHT, down(mark)]], 1);
    context.globalAlpha = 0.65;
    context.fillStyle = ink;
    context.fillText(brief(mark), LEFT - 6, down(mark));
  }
  context.globalAlpha = 0.35;
  line(context, ink, [[LEFT, bottom], [width - RIGHT, bottom]], 1);
  lines.forEach((points, number) => {
    const shown = thinned(points.filter((point) => point[1] > 0 || !logarithmic), Math.max(50, width));
    const place = ([update, value]) => [across(update), down(value)];
    if (!logarithmic) {
      context.globalAlpha = 1;
      line(context, colourOf(number), shown.map(place), 1.75);
      dots(context, colourOf(number), shown.map(place), 2.25);
      return;
    }
    // Single losses are of random states: they are the haze, and their running mean is the line.
    context.globalAlpha = 0.3;
    dots(context, colourOf(number), shown.map(place), 1.25);
    context.globalAlpha = 1;
    line(context, colourOf(number), runningMean(shown, Math.max(1, Math.round(shown.length / 12))).map(place), 1.75);
  });
  context.globalAlpha = 0.75;
  context.fillStyle = ink;
  context.textAlign = "left";
  context.textBaseline = "bottom";
  context.fillText(title, LEFT, top - 3);
  context.globalAlpha = 1;
}

function drawUpdates(context, ink, last, across, height) {
  context.globalAlpha = 0.65;
  context.fillStyle = ink;
  context.textAlign = "center";
  context.textBaseline = "bottom";
  for (const mark of ticks(0, last, 4)) {
    if (Number.isInteger(mark)) context.fillText(String(mark), Math.min(across(mark), across(last) - 6), height);
  }
  context.globalAlpha = 1;
}

function limits(values, logarithmic) {
  if (!values.length) return [1, 2];
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  if (logarithmic) return [low / 1.15, high * 1.15];
  const room = (high - low) * 0.1 || Math.abs(high) * 0.1 || 1;
  return [Math.max(0, low - room), high + room];
}

function line(context, colour, points, width) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.lineJoin = "round";
  context.beginPath();
  for (const [x, y] of points) context.lineTo(x, y);
  context.stroke();
}

function dots(context, colour, points, radius) {
  context.fillStyle = colour;
  for (const [x, y] of points) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fill();
  }
}
