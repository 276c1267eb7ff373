// Chat and engine as tabs, where the screen is too narrow for both.

import { byId } from "./elements.js";

const NAMES = ["chat", "engine"];
const WIDE = "(min-width: 900px)";

/** The tabs; `onChange` is called when what can be seen changes. */
export class Tabs {
  constructor(onChange) {
    this._onChange = onChange;
    for (const name of NAMES) {
      byId(`tab-${name}`).addEventListener("click", () => this.show(name));
      byId(`tab-${name}`).addEventListener("keydown", (event) => this._move(event, name));
    }
    matchMedia(WIDE).addEventListener("change", onChange);
  }

  get isEngineShown() {
    return matchMedia(WIDE).matches || document.body.dataset.tab === "engine";
  }

  show(name) {
    document.body.dataset.tab = name;
    for (const other of NAMES) {
      const tab = byId(`tab-${other}`);
      tab.setAttribute("aria-selected", String(other === name));
      tab.tabIndex = other === name ? 0 : -1;
    }
    this._onChange();
  }

  _move(event, name) {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = NAMES.find((candidate) => candidate !== name);
    this.show(other);
    byId(`tab-${other}`).focus();
  }
}
