// The pictures over time as a scrolling table; a click enlarges.

import { createElement } from "./elements.js";
import { openLightbox } from "./lightbox.js";
import { columnLabel, stripTable } from "./strip_data.js";

const SMALL = 128; // px, pictures up to this size are enlarged with sharp pixels

export class Strip {
  // `picture(url)` returns the address of an image.
  constructor(parent, picture) {
    this.picture = picture;
    this.element = createElement("div", "danceopd-strip", parent);
    this.element.setAttribute("role", "group");
    this.images = new Map(); // url -> its button, kept so that nothing flickers
    this.follows = true; // whether the newest column stays in view
    this.element.addEventListener("scroll", () => {
      const { scrollLeft, clientWidth, scrollWidth } = this.element;
      this.follows = scrollLeft + clientWidth > scrollWidth - 24;
    });
  }

  render(strip, event, running) {
    const table = stripTable(strip, event);
    const key = JSON.stringify([table, running]);
    if (key === this.key) return;
    this.key = key;
    const labels = table.columns.map((column, i) => columnLabel(table.columns, i, running));
    const fixed = table.columns.filter(({ kind }) => kind !== "update").length;
    this.element.style.setProperty("--danceopd-columns", labels.length);
    this.element.dataset.rows = Math.min(3, table.rows.length);
    const old = this.images;
    this.images = new Map();
    const cell = (tag, name, text, index) => {
      const element = createElement(tag, name, null, text);
      element.classList.toggle("fixed", index < fixed);
      element.style.setProperty("--danceopd-column", index);
      return element;
    };
    const cells = labels.map((label, i) => cell("span", "danceopd-column", label, i));
    table.rows.forEach(({ prompt, route }, row) => {
      const caption = createElement("div", "danceopd-caption");
      if (route) createElement("b", "", caption, route);
      createElement("span", "", caption, prompt);
      caption.title = prompt;
      cells.push(caption);
      table.columns.forEach(({ pictures }, i) => {
        const box = cell("span", "danceopd-cell", "", i);
        const url = pictures[row];
        if (url) box.append(this.#image(old, url, `${labels[i]}: ${prompt}`, () => openLightbox(table, row, i, labels, this.picture)));
        cells.push(box);
      });
    });
    this.element.replaceChildren(...(table.rows.length && labels.length ? cells : []));
    if (this.follows) requestAnimationFrame(() => (this.element.scrollLeft = this.element.scrollWidth));
  }

  #image(old, url, text, open) {
    const button = old.get(url) ?? this.#newImage(url);
    this.images.set(url, button);
    button.title = button.firstChild.alt = text;
    button.onclick = open;
    return button;
  }

  #newImage(url) {
    const button = createElement("button", "danceopd-picture");
    button.type = "button";
    const image = createElement("img", "", button);
    image.loading = "lazy";
    image.addEventListener("load", () => image.classList.toggle("small", image.naturalHeight <= SMALL));
    image.addEventListener("error", () => (button.hidden = true)); // it is not kept any more
    image.src = this.picture(url);
    return button;
  }
}
