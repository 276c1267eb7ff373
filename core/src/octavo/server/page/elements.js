// Elements made by hand: text is only ever set as text, never read as markup.

/**
 * A new element. `properties` are set as DOM properties, those with a dash or named `role` as
 * attributes, `on` as event listeners; children are nodes or text.
 */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "on") addListeners(made, value);
    else if (key.includes("-") || key === "role") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children);
  return made;
}

function addListeners(target, listeners) {
  for (const [kind, listener] of Object.entries(listeners)) target.addEventListener(kind, listener);
}

/** The element with an id; the page does not work without it. */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`The page has no element #${id}.`);
  return found;
}

/** Sets text only where it differs, so that selections and screen readers are left in peace. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** Says something to screen readers. */
export function announce(text) {
  setText(byId("status"), text);
}
