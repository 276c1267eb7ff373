// The blocks of a KV group as a grid: who holds what, what is shared, what is only remembered.

import { blockAt, cellsOf, numTouched, totalsOf } from "./block_cells.js";
import { fitCanvas } from "./canvas.js";
import { element, setText } from "./elements.js";
import { colourOf } from "./request_colour.js";

const SMALLEST_CELL_PX = 6;
const LARGEST_CELL_PX = 16;
const TALLEST_PX = 288;
const MOST_SHARING_HEIGHT = 3; // groups; further ones make the page longer
const FEWEST_SHOWN = 256; // blocks, so that a small start does not look like a full cache
const FIRST_BLOCK = 1; // block 0 takes what is padding, and is not shown
const STATES = { u: "unused", c: "cached, free to be taken", r: "in use" };

/** One group's grid; `show` brings it up to date, `highlight` dims all but one request. */
export class BlockMap {
  constructor(label) {
    this._canvas = element("canvas", { tabIndex: 0, role: "img", "aria-label": label });
    this._readout = element("p", { className: "readout", "aria-live": "polite" });
    this._caption = element("p", { className: "caption" });
    const frame = element("div", {}, this._canvas);
    this.node = element("div", { className: "map" }, this._caption, frame, this._readout);
    this._state = null;
    this._index = 0;
    this._numShown = 0; // blocks; those never touched behind them are left out
    this._pointed = -1; // cell under the pointer or the keyboard's cursor
    this._highlighted = "";
    this._listen();
  }

  show(state, groupIndex) {
    this._state = state;
    this._index = groupIndex;
    this._numShown = this._numToShow();
    setText(this._caption, this._summary());
    this._draw();
  }

  /** Shows only the blocks of one request in full colour; "" shows all. */
  highlight(requestId) {
    this._highlighted = requestId;
    this._draw();
  }

  /** Twice as many each time that it gets too few, and never fewer: the grid keeps its shape. */
  _numToShow() {
    let most = Math.max(this._numShown, FEWEST_SHOWN);
    while (most < numTouched(this._group)) most *= 2;
    return Math.min(most, this._group.num_blocks);
  }

  get _group() {
    return this._state?.groups[this._index];
  }

  _summary() {
    const { used, shared, cached, blocks } = totalsOf(this._group);
    const parts = [`${count(used)} of ${count(blocks)} in use`, `${count(cached)} cached`];
    if (shared) parts.splice(1, 0, `${count(shared)} shared`);
    const name = this._state.groups.length > 1 ? `Group ${this._index + 1}: ` : "";
    return name + parts.join(" · ");
  }

  _listen() {
    new ResizeObserver(() => this._draw()).observe(this._canvas.parentNode);
    const canvas = this._canvas;
    canvas.addEventListener("pointermove", (event) => this._point(this._cellUnder(event)));
    canvas.addEventListener("pointerdown", (event) => this._point(this._cellUnder(event)));
    canvas.addEventListener("pointerleave", ({ pointerType }) => {
      if (pointerType === "mouse") this._point(-1);
    });
    canvas.addEventListener("blur", () => this._point(-1));
    canvas.addEventListener("keydown", (event) => this._move(event));
  }

  _move(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this._columns, ArrowDown: this._columns };
    const step = steps[event.key];
    if (!step || !this._cells) return;
    event.preventDefault();
    const cell = this._pointed < 0 ? 0 : this._pointed + step;
    if (cell >= 0 && cell < this._cells.numCells) this._point(cell);
  }

  _cellUnder({ offsetX, offsetY }) {
    if (!this._cells) return -1;
    const column = Math.floor(offsetX / this._cellPx);
    const cell = Math.floor(offsetY / this._cellPx) * this._columns + column;
    return column < this._columns && cell < this._cells.numCells ? cell : -1;
  }

  _point(cell) {
    if (cell === this._pointed) return;
    this._pointed = cell;
    this._draw();
  }

  /** The largest cells with which all blocks fit; the smallest, several blocks each, if none do. */
  _layOut(width) {
    const numBlocks = this._numShown;
    const tallestPx = TALLEST_PX / Math.min(this._state.groups.length, MOST_SHARING_HEIGHT);
    for (let cellPx = LARGEST_CELL_PX; cellPx >= SMALLEST_CELL_PX; cellPx -= 1) {
      const columns = Math.max(1, Math.floor(width / cellPx));
      const most = columns * Math.floor(tallestPx / cellPx);
      if (numBlocks <= most || cellPx === SMALLEST_CELL_PX) {
        const blocksPerCell = Math.max(1, Math.ceil(numBlocks / most));
        [this._cellPx, this._columns] = [cellPx, columns];
        this._cells = cellsOf(this._group.runs, numBlocks, blocksPerCell);
        return Math.max(1, Math.ceil(this._cells.numCells / columns)) * cellPx;
      }
    }
    return 0;
  }

  _draw() {
    const width = this._canvas.clientWidth;
    if (!this._group || width === 0) return;
    this._canvas.style.height = `${this._layOut(width)}px`;
    const { context } = fitCanvas(this._canvas);
    context.clearRect(0, 0, width, this._canvas.clientHeight);
    const style = getComputedStyle(this._canvas);
    const inks = {
      ground: style.getPropertyValue("--map-unused"),
      cached: style.getPropertyValue("--map-cached"),
      mark: style.getPropertyValue("--map-mark"),
      cursor: style.getPropertyValue("--ink"),
    };
    const colours = this._state.requests.map(({ id }) => colourOf(id));
    for (let cell = 0; cell < this._cells.numCells; cell += 1) {
      this._drawCell(context, cell, colours, inks);
    }
    if (this._pointed >= 0) this._drawCursor(context, inks.cursor);
    setText(this._readout, this._told());
  }

  _drawCell(context, cell, colours, inks) {
    const { used, cached, shared, owner, blocksPerCell } = this._cells;
    const [x, y] = this._corner(cell);
    const size = this._cellPx - 1;
    context.fillStyle = inks.ground;
    context.fillRect(x, y, size, size);
    if (cached[cell]) this._fill(context, cell, inks.cached, cached[cell] / blocksPerCell);
    if (!used[cell]) return;
    const isDimmed = this._highlighted && this._state.requests[owner[cell]]?.id !== this._highlighted;
    const alpha = (0.35 + 0.65 * (used[cell] / blocksPerCell)) * (isDimmed ? 0.2 : 1);
    this._fill(context, cell, colours[owner[cell]] ?? inks.mark, alpha);
    if (shared[cell]) drawSharedMark(context, x, y, size, inks.mark);
  }

  _fill(context, cell, colour, alpha) {
    const [x, y] = this._corner(cell);
    context.globalAlpha = alpha;
    context.fillStyle = colour;
    context.fillRect(x, y, this._cellPx - 1, this._cellPx - 1);
    context.globalAlpha = 1;
  }

  _corner(cell) {
    const column = cell % this._columns;
    return [column * this._cellPx, Math.floor(cell / this._columns) * this._cellPx];
  }

  _drawCursor(context, colour) {
    const [x, y] = this._corner(this._pointed);
    context.strokeStyle = colour;
    context.lineWidth = 2;
    context.strokeRect(x, y, this._cellPx - 1, this._cellPx - 1);
  }

  /** What the pointed cell stands for, or how to find out. */
  _told() {
    const { blocksPerCell, numCells } = this._cells;
    if (this._pointed < 0 || this._pointed >= numCells) {
      const blocks = blocksPerCell > 1 ? `${blocksPerCell} blocks` : "a block";
      const rest = this._group.num_blocks - this._numShown;
      const more = rest ? ` ${count(rest)} more were never used.` : "";
      return `A cell is ${blocks} of ${this._state.block_size} tokens; point at one to see who holds it.${more}`;
    }
    return blocksPerCell > 1 ? this._toldOfMany() : this._toldOfOne();
  }

  _toldOfOne() {
    const { state, owner, numHolders } = blockAt(this._group, this._pointed);
    const parts = [`Block ${this._pointed + FIRST_BLOCK}: ${STATES[state]}`];
    if (numHolders > 1) parts.push(`shared by ${numHolders}`);
    if (owner >= 0) parts.push(this._state.requests[owner]?.id ?? "");
    return parts.join(" · ");
  }

  _toldOfMany() {
    const { used, cached, shared, owner, blocksPerCell } = this._cells;
    const first = this._pointed * blocksPerCell;
    const last = Math.min(first + blocksPerCell, this._numShown) - 1;
    const parts = [`Blocks ${first + FIRST_BLOCK}–${last + FIRST_BLOCK}`];
    parts.push(`${used[this._pointed]} in use`, `${cached[this._pointed]} cached`);
    if (shared[this._pointed]) parts.push(`${shared[this._pointed]} shared`);
    const id = this._state.requests[owner[this._pointed]]?.id;
    if (id) parts.push(`mostly ${id}`);
    return parts.join(" · ");
  }
}

function count(value) {
  return value.toLocaleString("en");
}

/** A stripe from corner to corner, so that sharing shows without colour. */
function drawSharedMark(context, x, y, size, colour) {
  context.strokeStyle = colour;
  context.lineWidth = Math.max(1.2, size / 7);
  context.beginPath();
  context.moveTo(x, y + size);
  context.lineTo(x + size, y);
  context.stroke();
}
