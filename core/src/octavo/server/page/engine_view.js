// The live view of the engine: figures, the block map of each KV group, and the requests.

import { totalsOf } from "./block_cells.js";
import { BlockMap } from "./block_map.js";
import { element, setText } from "./elements.js";
import { Rates, HISTORY_S } from "./rates.js";
import { RequestTable } from "./request_table.js";
import { drawSparkline } from "./sparkline.js";

const LEGEND = [
  ["used", "in use, by request"],
  ["shared", "shared prefix"],
  ["cached", "cached, free"],
  ["unused", "unused"],
];

/** The view in `root`. */
export class EngineView {
  constructor(root) {
    this._rates = new Rates();
    this._maps = [];
    this._figures = {};
    this._state = null;
    this._spark = element("canvas", { className: "spark", role: "img", "aria-label": "Generated tokens a second over the last minute" });
    this._note = element("p", { className: "note", role: "status" }, "Waiting for the engine …");
    this._mapsNode = element("div", { className: "maps" });
    this._table = new RequestTable({ onPoint: (id) => this._maps.forEach((map) => map.highlight(id)) });
    root.append(...this._parts());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }

  /** Forgets the model that was watched before. */
  clear() {
    this._rates = new Rates();
    this._state = null;
    this.fail("Waiting for the engine …");
  }

  fail(message) {
    this._note.hidden = false;
    setText(this._note, message);
  }

  show(state) {
    this._state = state;
    this._rates.take(state);
    this._note.hidden = true;
    this._showFigures(state);
    this._showMaps(state);
    this._table.show(state.requests);
    drawSparkline(this._spark, this._rates.history, HISTORY_S);
  }

  redraw() {
    if (!this._state) return;
    this._showMaps(this._state);
    drawSparkline(this._spark, this._rates.history, HISTORY_S);
  }

  _parts() {
    const generation = this._figure("generation", "Generation");
    generation.append(this._spark);
    generation.classList.add("wide");
    const figures = element(
      "dl",
      { className: "numbers-grid" },
      generation,
      this._figure("running", "Running"),
      this._figure("waiting", "Waiting"),
      this._figure("swapped", "Swapped"),
      this._figure("prompt", "Prompt"),
      this._figure("cache", "KV cache"),
      this._figure("hits", "Prefix hits"),
    );
    return [
      this._note,
      figures,
      element("section", { "aria-label": "KV blocks" }, element("h2", {}, "KV blocks"), this._mapsNode, legend()),
      element("section", { "aria-label": "Requests" }, element("h2", {}, "Requests"), this._table.node),
    ];
  }

  _figure(name, title) {
    const [value, unit] = [element("b"), element("span", { className: "unit" })];
    this._figures[name] = { value, unit };
    const node = element("div", {}, element("dt", {}, title), element("dd", {}, value, unit));
    node.dataset.figure = name;
    return node;
  }

  _set(name, value, unit = "") {
    setText(this._figures[name].value, value);
    setText(this._figures[name].unit, unit);
  }

  _showFigures({ stats, groups }) {
    this._set("running", count(stats.num_running));
    this._set("waiting", count(stats.num_waiting));
    const preempted = stats.num_preemptions ? `${count(stats.num_preemptions)} preempted` : "";
    this._set("swapped", count(stats.num_swapped), preempted);
    this._set("generation", rate(this._rates.of("num_generated_tokens")), "tokens/s");
    this._set("prompt", rate(this._rates.of("num_prompt_tokens")), "tokens/s");
    const totals = groups.map(totalsOf);
    const fullest = Math.max(0, ...totals.map(({ used, blocks }) => used / Math.max(1, blocks)));
    this._set("cache", percent(fullest), "in use");
    const { num_prefix_query_tokens: asked, num_prefix_hit_tokens: hit } = stats;
    this._set("hits", asked ? percent(hit / asked) : "–", asked ? "of tokens" : "");
  }

  _showMaps(state) {
    while (this._maps.length > state.groups.length) this._maps.pop().node.remove();
    state.groups.forEach((group, index) => {
      if (!this._maps[index]) this._addMap(index);
      this._maps[index].show(state, index);
    });
  }

  _addMap(index) {
    const map = new BlockMap(`Blocks of KV group ${index + 1}; arrow keys go from cell to cell`);
    this._maps.push(map);
    this._mapsNode.append(map.node);
  }
}

function legend() {
  const entries = LEGEND.map(([kind, text]) => {
    const cell = element("span", { className: `cell ${kind}`, "aria-hidden": "true" });
    return element("li", {}, cell, text);
  });
  return element("ul", { className: "legend" }, ...entries);
}

function count(value) {
  return value.toLocaleString("en");
}

function rate(value) {
  return value < 10 ? value.toFixed(1) : count(Math.round(value));
}

function percent(share) {
  const value = 100 * share;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  return `${value > 0 && value < 10 ? value.toFixed(1) : Math.round(value)} %`;
}
