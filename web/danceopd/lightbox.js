// One picture large, with a slider over it to the newest of its prompt: before and after.

import { createElement, createButton } from "./elements.js";
import { t } from "./i18n.js";
import { openOverlay } from "./overlay.js";
import { compared, nextColumn } from "./strip_data.js";

const SMALL = 128; // px, pictures up to this size are enlarged with sharp pixels

// `table`: of strip_data.js; `labels`: of its columns. Arrow keys go to other columns and prompts.
export function openLightbox(table, row, column, labels, picture) {
  const body = openOverlay(t("Validation pictures"), "danceopd-lightbox", ({ key, shiftKey }) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[key];
    if (!step) return false;
    if (shiftKey && step[1]) wipe(position + 5 * step[1]);
    else show(row + step[0], step[1] ? nextColumn(columns, row, column, step[1]) : column);
    return true;
  });
  const { rows, columns } = table;
  const caption = createElement("div", "danceopd-lightbox-caption", body);
  const figure = createElement("div", "danceopd-compare", body);
  const [after, before] = ["after", "before"].map((name) => createElement("img", name, figure));
  const divider = createElement("div", "danceopd-divider", figure);
  const [left, right] = ["left", "right"].map((name) => createElement("span", `danceopd-tag ${name}`, figure));
  const range = createElement("input", "", body);
  range.type = "range";
  range.setAttribute("aria-label", t("Before and after"));
  const all = createElement("div", "danceopd-filmstrip", body);
  createElement("div", "danceopd-keys", body, t("← → other columns · ↑ ↓ other prompts · drag over the picture: before and after"));
  let position = 100; // percent of the width that shows the picture before

  const newest = () => nextColumn(columns, row, columns.length, -1);

  function wipe(percent) {
    position = Math.min(100, Math.max(0, percent));
    range.value = position;
    before.style.clipPath = `inset(0 ${100 - position}% 0 0)`;
    divider.style.left = `${position}%`;
    divider.style.setProperty("--danceopd-position", position); // keeps its handle inside
    left.style.opacity = position > 8 ? 1 : 0;
    right.style.opacity = position < 92 ? 1 : 0;
  }

  // The newest picture is compared with an earlier one; any other with the newest.
  function show(nextRow, nextColumn_) {
    row = Math.min(rows.length - 1, Math.max(0, nextRow));
    column = columns[nextColumn_].pictures[row] ? nextColumn_ : newest();
    const last = newest();
    const other = column === last ? compared(columns, row) : column;
    before.src = picture(columns[other].pictures[row]);
    after.src = picture(columns[last].pictures[row]);
    [left.textContent, right.textContent] = [labels[other], labels[last]];
    caption.replaceChildren();
    if (rows[row].route) createElement("b", "", caption, rows[row].route);
    createElement("span", "", caption, rows[row].prompt);
    divider.hidden = range.hidden = other === last;
    wipe(column === last ? 0 : 100);
    all.replaceChildren(...columns.map(({ pictures }, i) => thumbnail(pictures[row], i)));
    all.children[column].scrollIntoView({ block: "nearest", inline: "center" });
  }

  function thumbnail(url, i) {
    const button = createButton(null, "", () => show(row, i));
    button.classList.toggle("chosen", i === column);
    button.hidden = !url;
    if (url) createElement("img", "", button).src = picture(url);
    createElement("span", "", button, labels[i]);
    return button;
  }

  const sharp = () => figure.classList.toggle("small", before.naturalHeight <= SMALL);
  before.addEventListener("load", sharp);
  const drag = ({ clientX, buttons, type }) => {
    const { left: start, width } = figure.getBoundingClientRect();
    if (buttons & 1 || type === "pointerdown") wipe((100 * (clientX - start)) / width);
  };
  figure.addEventListener("pointerdown", (event) => {
    figure.setPointerCapture(event.pointerId);
    drag(event);
  });
  figure.addEventListener("pointermove", drag);
  figure.addEventListener("dragstart", (event) => event.preventDefault());
  range.addEventListener("input", () => wipe(Number(range.value)));
  show(row, column);
}
