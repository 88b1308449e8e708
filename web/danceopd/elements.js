// Makes elements of the page.

export function createElement(tag, name = "", parent = null, text = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text) element.textContent = text;
  parent?.append(element);
  return element;
}

export function createButton(parent, text, click, name = "") {
  const button = createElement("button", name, parent, text);
  button.type = "button";
  button.addEventListener("click", click);
  return button;
}

// Whether the text is on the clipboard now. Pages without TLS have no `navigator.clipboard`.
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = createElement("textarea", "", document.body);
    area.value = text;
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}
