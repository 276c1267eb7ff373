// The engine's requests as a table, brought up to date row by row.

import { element, setText } from "./elements.js";
import { swatch } from "./swatch.js";

const MOST_ROWS = 200;
const COLUMNS = [
  { title: "Request", cell: ({ id }) => shortened(id) },
  { title: "State", cell: ({ status }) => status },
  { title: "Prompt", cell: (view) => count(view.num_prompt_tokens), hint: "Prompt tokens" },
  { title: "Cached", cell: (view) => count(view.num_cached_tokens), hint: "Prompt tokens that the prefix cache gave" },
  { title: "Out", cell: (view) => count(view.num_output_tokens), hint: "Generated tokens" },
  { title: "Age", cell: ({ age_s: ageS }) => age(ageS), hint: "Since the request came" },
];

/** `onPoint` gets the id of the row under the pointer or in focus, "" when there is none. */
export class RequestTable {
  constructor({ onPoint }) {
    this._onPoint = onPoint;
    this._rows = new Map();
    this._body = element("tbody");
    this._more = element("p", { className: "hint", hidden: true });
    this._none = element("p", { className: "none" }, "No request is under way.");
    const heads = COLUMNS.map(({ title, hint = "" }) => element("th", { scope: "col", title: hint }, title));
    const head = element("thead", {}, element("tr", {}, ...heads));
    this._table = element("table", { "aria-label": "Requests" }, head, this._body);
    const frame = element("div", { className: "table-frame" }, this._table, this._none);
    this.node = element("div", {}, frame, this._more);
    this._body.addEventListener("pointerover", ({ target }) => this._point(target));
    this._body.addEventListener("pointerleave", () => onPoint(""));
    this._body.addEventListener("focusin", ({ target }) => this._point(target));
    this._body.addEventListener("focusout", () => onPoint(""));
  }

  show(requests) {
    const shown = requests.slice(0, MOST_ROWS);
    const ids = new Set(shown.map(({ id }) => id));
    for (const [id, row] of this._rows) if (!ids.has(id)) this._drop(id, row);
    shown.forEach((view, index) => this._showRow(view, index));
    this._table.hidden = requests.length === 0;
    this._none.hidden = requests.length > 0;
    this._more.hidden = requests.length <= MOST_ROWS;
    setText(this._more, `and ${count(requests.length - MOST_ROWS)} more`);
  }

  _showRow(view, index) {
    let row = this._rows.get(view.id);
    if (!row) this._rows.set(view.id, (row = newRow(view.id)));
    if (this._body.children[index] !== row) this._body.insertBefore(row, this._body.children[index] ?? null);
    COLUMNS.forEach(({ cell }, column) => setText(row.octavoCells[column], cell(view)));
    row.dataset.status = view.status;
  }

  _drop(id, row) {
    if (row.contains(document.activeElement)) this._onPoint("");
    row.remove();
    this._rows.delete(id);
  }

  _point(target) {
    this._onPoint(target.closest("tr")?.dataset.id ?? "");
  }
}

function newRow(id) {
  const name = element("span", { className: "id", title: id });
  const first = element("th", { scope: "row" }, element("span", { className: "id-cell" }, swatch(id), name));
  const others = COLUMNS.slice(1).map(() => element("td"));
  const row = element("tr", { tabIndex: 0 }, first, ...others);
  row.dataset.id = id;
  row.octavoCells = [name, ...others];
  return row;
}

/** Ids begin alike: what tells them apart is at the end. */
function shortened(id) {
  return id.length > 20 ? `${id.slice(0, 9)}…${id.slice(-8)}` : id;
}

function count(value) {
  return value.toLocaleString("en");
}

function age(seconds) {
  if (seconds < 100) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")} min`;
}
