// The product of activations and a weight of 16 or 32 bits, from one row to thousands.
//
// A weight is kept in panels of kPanel columns: for each step over in_features, the panel's words side
// by side, so that one row reads memory strictly in order. An output element has one accumulator, in
// float32, that runs over in_features in order: where blocks of steps cut it, it is stored and taken up
// again exactly. A row's result therefore does not depend on the rows beside it.
#include "linear.h"
#include "linear_panels.h"
#include "linear_products.h"

namespace octavo::OCTAVO_VARIANT {
namespace {

constexpr int64_t kBlockBytes = 16 << 10;   // of a panel: stays in the first cache over a chunk's rows
constexpr int64_t kRowsBytes = 256 << 10;   // of activations: stay in the second cache over its panels
constexpr int64_t kPanelBytes = 512 << 10;  // of weights in a chunk: enough to be worth handing out

// Weights to read and rows times weights that take less time than waking a thread.
constexpr int64_t kTinyBytes = 128 << 10, kTinyWork = 1 << 20;
constexpr int64_t kFewRowsAhead = 4 << 10;  // far enough for memory, near enough for the caches
constexpr int kLineBytes = 64;

// ---- tiles ----

template <class Product>
struct Tile {
  const typename Product::Word* panel;
  const typename Product::Activation* x;
  int64_t stride, steps;
  f32v* accumulators;
  const char* ahead;
};

// `ahead` is where the weights of later tiles lie: kLines cache lines of it are fetched in each step.
template <class Product, int kRows, int kLines>
void multiply_tile(const Tile<Product>& tile) {
  const auto* panel = tile.panel;
  const auto* x = tile.x;
  const char* ahead = tile.ahead;
  f32v sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sums[row][v] = tile.accumulators[row * kVectors + v];
  for (int64_t step = 0; step < tile.steps; ++step) {
    if constexpr (kRows > 1)
      for (int line = 0; line < kLines; ++line) __builtin_prefetch(ahead + line * kLineBytes, 0, 3);
    Product::template add<kRows>(panel, x, tile.stride, sums);
    panel += kPanel;
    x += Product::kDepth;
    ahead += kLines * kLineBytes;
  }
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) tile.accumulators[row * kVectors + v] = sums[row][v];
}

template <class Product, int kLines, int kRows = kTileRows>
void multiply_tile(const Tile<Product>& tile, int64_t rows) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return multiply_tile<Product, kLines, kRows - 1>(tile, rows);
  }
  multiply_tile<Product, kRows, kLines>(tile);
}

// The rows that a chunk multiplies, as the product takes them.
template <class Activation>
struct Rows {
  const Activation* x;
  int64_t stride, count;
};

// Rows times one panel: a block of steps at a time over all rows, in tiles of about the same height. While
// the first tiles multiply one block, the next, which lies behind it, comes from memory.
template <class Product>
void multiply_panel(const typename Product::Word* panel, const Rows<typename Product::Activation>& rows,
                    int64_t num_steps, f32v* accumulators) {
  constexpr int64_t kStepBytes = kPanel * static_cast<int64_t>(sizeof(typename Product::Word));
  constexpr int64_t kBlockSteps = kBlockBytes / kStepBytes;
  constexpr int kStepLines = kStepBytes / kLineBytes;
  for (int64_t i = 0; i < rows.count * kVectors; ++i) accumulators[i] = f32v{};
  const int64_t num_tiles = chunks_of(rows.count, kTileRows);
  for (int64_t begin = 0; begin < num_steps; begin += kBlockSteps) {
    const int64_t steps = std::min(kBlockSteps, num_steps - begin);
    int64_t row = 0;
    for (int64_t index = 0; index < num_tiles; ++index) {
      const int64_t height = chunks_of(rows.count - row, num_tiles - index);
      Tile<Product> tile{panel + begin * kPanel,
                         rows.x + row * rows.stride + begin * Product::kDepth,
                         rows.stride,
                         steps,
                         accumulators + row * kVectors,
                         reinterpret_cast<const char*>(panel + begin * kPanel)};
      row += height;
      if (num_tiles == 1) {
        tile.ahead += kFewRowsAhead;
        multiply_tile<Product, kStepLines>(tile, height);
      } else if (num_tiles < kStepLines) {
        if (index < 2) tile.ahead += steps * (kStepBytes + index * kStepBytes / 2);
        multiply_tile<Product, std::max(1, kStepLines / 2)>(tile, height);
      } else {
        if (index < kStepLines) tile.ahead += steps * (kStepBytes + index * kLineBytes);
        multiply_tile<Product, 1>(tile, height);
      }
    }
  }
}

// ---- chunks: some rows times some panels ----

struct Grid {
  int64_t rows_per_chunk, row_chunks, panels_per_chunk, panel_chunks;
};

Grid grid_of(const Call& call) {
  const auto& linear = *call.operand<const Linear>(1);
  const int64_t rows = call.size(0), panels = chunks_of(linear.out_features, kPanel);
  const auto bytes = static_cast<int64_t>(linear.bytes);
  if (bytes < kTinyBytes && rows * bytes < kTinyWork) return {rows, 1, panels, 1};
  // Blocks of rows that the second cache holds, and more of them where the panels are too few to share.
  const int64_t fitting = kRowsBytes / (2 * linear.in_features);
  int64_t rows_per_chunk = std::min<int64_t>(192, std::max<int64_t>(8 * kTileRows, fitting));
  const int64_t wanted = chunks_of(4 * call.num_threads, panels);
  rows_per_chunk = std::min(rows_per_chunk, std::max<int64_t>(4 * kTileRows, chunks_of(rows, wanted)));
  const int64_t row_chunks = chunks_of(rows, rows_per_chunk);
  const int64_t most = std::max<int64_t>(1, kPanelBytes / (bytes / panels));
  const int64_t panels_per_chunk =
      std::min(most, std::max<int64_t>(1, panels * row_chunks / (8 * call.num_threads)));
  return {rows_per_chunk, row_chunks, panels_per_chunk, chunks_of(panels, panels_per_chunk)};
}

// Rows in another type than the product takes, or that end in the middle of a step: copied, with zeros.
template <class Activation, class T>
void copy_rows(const T* x, int64_t stride, int64_t rows, int64_t dim, Activation* copies,
               int64_t copy_stride) {
  for (int64_t row = 0; row < rows; ++row) {
    Activation* copy = copies + row * copy_stride;
    by_lanes(dim, [&](int64_t i, auto count) { store(copy + i, load(x + row * stride + i, count), count); });
    std::fill(copy + dim, copy + copy_stride, Activation{});
  }
}

template <class Product, class T>
void run_chunk(const Call& call, int64_t chunk, Scratch& scratch) {
  using Activation = typename Product::Activation;
  using Word = typename Product::Word;
  const auto& linear = *call.operand<const Linear>(1);
  const int64_t dim = linear.in_features, num_steps = chunks_of(dim, Product::kDepth);
  const int64_t padded = num_steps * Product::kDepth;
  const Grid grid = grid_of(call);
  // Neighbours in time share panels: a weight is read from memory once.
  const Range range = range_of(chunk % grid.row_chunks, grid.rows_per_chunk, call.size(0));
  const Range panels =
      range_of(chunk / grid.row_chunks, grid.panels_per_chunk, chunks_of(linear.out_features, kPanel));

  const T* x = call.operand<const T>(0) + range.begin * call.size(1);
  Rows<Activation> rows{nullptr, call.size(1), range.end - range.begin};
  const bool fits = std::is_same_v<T, Activation> && padded == dim;
  const size_t sums_bytes = static_cast<size_t>(rows.count * kPanel) * sizeof(float);
  const size_t copy_bytes = fits ? 0 : static_cast<size_t>(rows.count * padded) * sizeof(Activation);
  auto* memory = scratch.array<char>(sums_bytes + copy_bytes);
  auto* sums = reinterpret_cast<f32v*>(memory);
  if constexpr (std::is_same_v<T, Activation>) rows.x = x;
  if (!fits) {
    auto* copies = reinterpret_cast<Activation*>(memory + sums_bytes);
    copy_rows(x, call.size(1), rows.count, dim, copies, padded);
    rows.x = copies, rows.stride = padded;
  }

  for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
    const auto* words = static_cast<const Word*>(linear.data) + panel * num_steps * kPanel;
    multiply_panel<Product>(words, rows, num_steps, sums);
    store_sums<T>(call, sums, panel, range);
  }
}

template <class T>
void run_as(const Call& call, int64_t chunk, Scratch& scratch) {
  switch (call.operand<const Linear>(1)->scheme) {
    case Scheme::f32: return run_chunk<WideProduct<float>, T>(call, chunk, scratch);
    case Scheme::f16: return run_chunk<WideProduct<f16>, T>(call, chunk, scratch);
    // An instruction set with an instruction for whole tiles would be asked for here, by rows: the panels
    // are what AMX loads, 64 bytes of each step.
    case Scheme::bf16: return run_chunk<PairProduct<T>, T>(call, chunk, scratch);
    default: return;
  }
}

}  // namespace

bool pack_dense(Linear& linear, const void* rows, int64_t row_bytes) {
  return pack_panels(linear, static_cast<const char*>(rows), row_bytes);
}

int64_t dense_chunks(const Call& call) {
  const auto& linear = *call.operand<const Linear>(1);
  if (call.size(0) == 0 || linear.out_features == 0) return 0;
  const Grid grid = grid_of(call);
  return grid.row_chunks * grid.panel_chunks;
}

void run_dense(const Call& call, int64_t chunk, Scratch& scratch) {
  by_element(call, [&](auto zero) { run_as<decltype(zero)>(call, chunk, scratch); });
}

}  // namespace octavo::OCTAVO_VARIANT
