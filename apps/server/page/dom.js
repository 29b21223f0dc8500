// Small helpers to build elements. Text from the server is only ever set as text, never as markup.

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/**
 * A new element. `props` are set as properties where the element has them (`onclick`, `className`,
 * `hidden`) and as attributes otherwise (`aria-label`); null and undefined are left out.
 * Children are nodes or strings; null and false are left out.
 */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined) continue;
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== false));
  return node;
}

/** Says it to screen readers without moving anything. */
export function announce(text) {
  const live = byId('live');
  // Equal text twice in a row is not read out again unless it was gone in between.
  live.textContent = '';
  requestAnimationFrame(() => (live.textContent = text));
}

/** Shows the text in an element that is hidden while there is nothing to say. */
export function say(node, text) {
  node.textContent = text ?? '';
  node.hidden = !text;
}

/** Saves a blob under this name. */
export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  el('a', { href: url, download: name }).click();
  // The browser reads it after the click has returned.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
