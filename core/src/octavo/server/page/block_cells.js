// What the cells of the block map stand for: one block each, or several where there are many.

/**
 * Sums the first `numBlocks` up into cells of `blocksPerCell`. Each cell counts its used, cached and shared
 * blocks and knows the owner of the longest used stretch in it (-1: none).
 */
export function cellsOf(runs, numBlocks, blocksPerCell) {
  const numCells = Math.ceil(numBlocks / blocksPerCell);
  const cells = {
    numCells,
    blocksPerCell,
    used: new Uint32Array(numCells),
    cached: new Uint32Array(numCells),
    shared: new Uint32Array(numCells),
    owner: new Int32Array(numCells).fill(-1),
  };
  const longest = new Uint32Array(numCells);
  let start = 0;
  for (const run of runs) {
    if (run[0] !== "u") addRun(cells, longest, run, start);
    start += run[3];
  }
  return cells;
}

function addRun(cells, longest, [state, owner, numHolders, count], start) {
  const size = cells.blocksPerCell;
  const end = start + count;
  for (let cell = Math.floor(start / size); cell * size < end && cell < cells.numCells; cell += 1) {
    const share = Math.min(end, (cell + 1) * size) - Math.max(start, cell * size);
    if (state === "c") {
      cells.cached[cell] += share;
      continue;
    }
    cells.used[cell] += share;
    if (numHolders > 1) cells.shared[cell] += share;
    if (share > longest[cell]) {
      longest[cell] = share;
      cells.owner[cell] = owner;
    }
  }
}

/** How many blocks a group has in each state. */
export function totalsOf({ num_blocks: numBlocks, runs }) {
  const totals = { blocks: numBlocks, used: 0, cached: 0, shared: 0 };
  for (const [state, , numHolders, count] of runs) {
    if (state === "c") totals.cached += count;
    if (state === "r") totals.used += count;
    if (state === "r" && numHolders > 1) totals.shared += count;
  }
  return totals;
}

/** How many blocks there are up to the last that is, or was, in use. */
export function numTouched({ runs }) {
  const num = runs.reduce((sum, [, , , count]) => sum + count, 0);
  const last = runs.at(-1);
  return last?.[0] === "u" ? num - last[3] : num;
}

/** The run that a block is in: {state, owner, numHolders}. */
export function blockAt({ runs }, index) {
  let end = 0;
  for (const [state, owner, numHolders, count] of runs) {
    end += count;
    if (index < end) return { state, owner, numHolders };
  }
  return { state: "u", owner: -1, numHolders: 0 };
}
