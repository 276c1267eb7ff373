// Copying text, also where the page is not served over HTTPS or from this machine.

import { announce, element } from "./elements.js";

/** Copies `text` and says so on `button` for a moment. */
export async function copyFrom(button, text) {
  const label = button.textContent;
  const copied = await copy(text);
  button.textContent = copied ? "Copied" : "Not copied";
  announce(button.textContent);
  setTimeout(() => {
    button.textContent = label;
  }, 1200);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

function copyBySelection(text) {
  const before = document.activeElement;
  const area = element("textarea", { value: text, readOnly: true, className: "unseen" });
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  before?.focus();
  return copied;
}
