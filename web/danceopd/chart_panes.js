// Draws the parts of the chart: an axis with its lines, the axis of updates, markers.

import { logTicks, numberText, ticks } from "./format.js";
import { downsample, runningMean } from "./series.js";

export const LEFT = 44;
export const RIGHT = 10;
const COLOURS = ["#4c9be8", "#f0954b", "#54b884", "#e2699b", "#a78bea", "#c9a92c", "#3fb8c4", "#dd6a5b"];
const DASH = [5, 4];

export function colourOf(index) {
  return COLOURS[index % COLOURS.length];
}

// A pane from `top` to `bottom`; `values` set its limits. Returns the y coordinate of a value.
export function drawAxis(pen, title, values, [top, bottom], { logarithmic = false, unit = "", limits = null } = {}) {
  const { context, colour, width } = pen;
  const [low, high] = limits ?? limitsOf(values, logarithmic);
  const scaled = logarithmic ? Math.log : (value) => value;
  const yOf = (value) => bottom - ((scaled(value) - scaled(low)) / (scaled(high) - scaled(low))) * (bottom - top);
  context.textBaseline = "middle";
  context.textAlign = "right";
  const tickCount = Math.max(1, Math.floor((bottom - top) / 20));
  let above = Infinity; // where the last number was written
  for (const tick of values.length ? (logarithmic ? logTicks : ticks)(low, high, tickCount) : []) {
    if (above - yOf(tick) < 11) continue;
    above = yOf(tick);
    context.globalAlpha = 0.14;
    drawLine(context, colour, [[LEFT, yOf(tick)], [width - RIGHT, yOf(tick)]], 1);
    context.globalAlpha = 0.65;
    context.fillStyle = colour;
    context.fillText(`${numberText(tick)}${unit}`, LEFT - 6, yOf(tick));
  }
  context.globalAlpha = 0.35;
  drawLine(context, colour, [[LEFT, bottom], [width - RIGHT, bottom]], 1);
  context.globalAlpha = 0.75;
  context.fillStyle = colour;
  context.textAlign = "left";
  context.textBaseline = "bottom";
  context.fillText(title, LEFT, top - 4);
  context.globalAlpha = 1;
  return yOf;
}

// Validated values: a line with a dot at each.
export function drawValidation(pen, points, yOf, index, dashed) {
  const shown = downsample(points, Math.max(50, pen.width)).map(([update, value]) => [pen.xOf(update), yOf(value)]);
  drawLine(pen.context, colourOf(index), shown, 2, dashed ? DASH : []);
  drawDots(pen.context, colourOf(index), shown.length > 60 ? shown.slice(-1) : shown, 2.25);
}

// Single losses are noisy, because their states are random: they are faint dots, and the running mean is the line.
export function drawLosses(pen, points, yOf, index) {
  const shown = downsample(points.filter((point) => point[1] > 0), Math.max(50, pen.width));
  const position = ([update, value]) => [pen.xOf(update), yOf(value)];
  pen.context.globalAlpha = 0.22;
  drawDots(pen.context, colourOf(index), shown.map(position), 1.1);
  pen.context.globalAlpha = 0.75;
  const mean = runningMean(shown, Math.max(1, Math.round(shown.length / 12)));
  drawLine(pen.context, colourOf(index), mean.map(position), 1.25);
  pen.context.globalAlpha = 1;
}

export function drawUpdateAxis({ context, colour, last, xOf }, height) {
  context.globalAlpha = 0.65;
  context.fillStyle = colour;
  context.textAlign = "center";
  context.textBaseline = "bottom";
  for (const tick of ticks(0, last, 4)) {
    if (Number.isInteger(tick)) context.fillText(String(tick), Math.min(xOf(tick), xOf(last) - 6), height);
  }
  context.globalAlpha = 1;
}

// A vertical line over a pane, with a text at its top, right of the pane's title.
export function drawMarker({ context, width }, colour, x, [top, bottom], text, title) {
  context.globalAlpha = 0.8;
  drawLine(context, colour, [[x, top], [x, bottom]], 1, [2, 3]);
  context.globalAlpha = 1;
  context.fillStyle = colour;
  context.textBaseline = "bottom";
  context.textAlign = "left";
  const [least, most] = [LEFT + context.measureText(title).width + 10, width - RIGHT - context.measureText(text).width];
  context.fillText(text, Math.max(least, Math.min(x - 2, most)), top - 4);
}

export function drawLine(context, colour, points, width, dash = []) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.lineJoin = "round";
  context.setLineDash(dash);
  context.beginPath();
  for (const [x, y] of points) context.lineTo(x, y);
  context.stroke();
  context.setLineDash([]);
}

export function drawDots(context, colour, points, radius) {
  context.fillStyle = colour;
  for (const [x, y] of points) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fill();
  }
}

// The ends of a value axis, with a margin around the values.
export function limitsOf(values, logarithmic) {
  if (!values.length) return [1, 2];
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  if (logarithmic) return [low / 1.15, high * 1.15];
  const margin = (high - low) * 0.1 || Math.abs(high) * 0.1 || 1;
  return [Math.max(0, low - margin), high + margin];
}

// Of validation in percent of the start: from 0, or from 50 where nothing is near 0, to a little above the highest.
export function percentLimits(values) {
  const [low, high] = [Math.min(100, ...values), Math.max(100, ...values)];
  return [low > 65 ? 50 : 0, high * 1.05];
}
