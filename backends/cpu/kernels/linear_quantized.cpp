// The product of activations and a weight that stays packed.
//
// A group's codes are multiplied as the whole numbers they are; the sum, in float32, is then scaled
// and added to the column's one accumulator, and the group's minimum times the sum of its activations
// after it. That order is the same for one row, straight from the panel, and for many rows, which
// share a group's unpacked codes: a row's result does not depend on the rows beside it.
#include "linear.h"
#include "quantized/panel.h"

namespace octavo::OCTAVO_VARIANT {
namespace {

constexpr int64_t kRowsPerChunk = 96;  // their accumulators and a group's codes stay in the first cache
constexpr int64_t kFewRows = 4;        // unpacking for each row is cheaper below
constexpr int kPrefetchBytes = 4096;   // ahead: the processor's own prefetch stops at each page
#if defined(__AVX512F__) || defined(__aarch64__) || defined(__powerpc64__)
constexpr int kTileRows = 6;  // 24 sums and 4 codes in 32 registers
#else
constexpr int kTileRows = 2;  // 8 and 4 in 16
#endif

// The rows of activations that a chunk multiplies, as the product takes them.
template <class Activation>
struct Rows {
  const Activation* x;
  int64_t stride, count;
  const float* group_sums;  // f32[count, groups], or nullptr
};

template <class F, class Activation>
void sum_groups(const Rows<Activation>& rows, int64_t num_groups, float* sums) {
  for (int64_t row = 0; row < rows.count; ++row) {
    const Activation* x = rows.x + row * rows.stride;
    for (int64_t group = 0; group < num_groups; ++group, x += F::kGroup) {
      f32v total = load(x);
      for (int i = kLanes; i < F::kGroup; i += kLanes) total += load(x + i);
      sums[row * num_groups + group] = sum(total);
    }
  }
}

// Add a group's part to the accumulators of one vector of columns.
template <class F>
f32v accumulate(f32v accumulator, f32v group_sum, f32v scale, f32v minimum, float activations) {
  accumulator = fma(scale, group_sum, accumulator);
  if constexpr (F::Scales::kHasMinimum) accumulator = fma(minimum, splat(activations), accumulator);
  return accumulator;
}

// ---- one row: codes go from the panel to the multiplier ----

template <class F, class Product>
void multiply_row(const uint8_t* panel, int64_t in_features, const typename Product::Activation* x,
                  const float* group_sums, f32v* accumulators) {
  using P = Panel<F>;
  f32v totals[kVectors] = {};
  P::for_each_group(panel, in_features, [&](const uint8_t* header, const uint8_t* group, int64_t index) {
    f32v sums[kVectors] = {};
    for (int i = 0; i < P::kGroupBytes; i += 64) __builtin_prefetch(group + kPrefetchBytes + i, 0, 0);
    unrolled<P::kWords>([&](auto word) {
      typename P::Codes::Word words[kVectors];
      for (int v = 0; v < kVectors; ++v) words[v] = P::Codes::load(P::word(group, word, v));
      unrolled<P::Codes::kPerWord / Product::kPerStep>([&](auto step) {
        const auto activation = Product::splat(x + word * P::Codes::kPerWord + step * Product::kPerStep);
        for (int v = 0; v < kVectors; ++v)
          sums[v] = Product::add(sums[v], P::Codes::template code<decltype(step)::value>(words[v], Product{}), activation);
      });
    });
    x += F::kGroup;
    for (int v = 0; v < kVectors; ++v) {
      const f32v minimum = F::Scales::kHasMinimum ? P::minimum(header, group, v) : f32v{};
      totals[v] = accumulate<F>(totals[v], sums[v], P::scale(header, group, v), minimum,
                                F::Scales::kHasMinimum ? group_sums[index] : 0.0f);
    }
  });
  for (int v = 0; v < kVectors; ++v) accumulators[v] = totals[v];
}

// ---- many rows: a group's codes are unpacked once ----

template <class F, class Product>
struct Unpacked {
  static constexpr int kSteps = F::kGroup / Product::kPerStep;
  typename Product::Code codes[kSteps][kVectors];
  f32v scales[kVectors], minima[kVectors];

  void read(const uint8_t* header, const uint8_t* group) {
    using P = Panel<F>;
    constexpr int kStepsPerWord = P::Codes::kPerWord / Product::kPerStep;
    for (int word = 0; word < P::kWords; ++word) {
      for (int v = 0; v < kVectors; ++v) {
        const auto packed = P::Codes::load(P::word(group, word, v));
        unrolled<kStepsPerWord>([&](auto step) {
          codes[word * kStepsPerWord + step][v] = P::Codes::template code<decltype(step)::value>(packed, Product{});
        });
      }
    }
    for (int v = 0; v < kVectors; ++v) {
      scales[v] = P::scale(header, group, v);
      if constexpr (F::Scales::kHasMinimum) minima[v] = P::minimum(header, group, v);
    }
  }
};

template <class F, class Product, int kRows>
void multiply_tile(const Unpacked<F, Product>& group, const typename Product::Activation* x, int64_t stride,
                   const float* group_sums, int64_t num_groups, f32v* accumulators) {
  f32v sums[kRows][kVectors] = {};
  for (int step = 0; step < Unpacked<F, Product>::kSteps; ++step) {
    for (int row = 0; row < kRows; ++row) {
      const auto activation = Product::splat(x + row * stride + step * Product::kPerStep);
      for (int v = 0; v < kVectors; ++v)
        sums[row][v] = Product::add(sums[row][v], group.codes[step][v], activation);
    }
  }
  for (int row = 0; row < kRows; ++row) {
    const float activations = F::Scales::kHasMinimum ? group_sums[row * num_groups] : 0.0f;
    for (int v = 0; v < kVectors; ++v) {
      f32v& accumulator = accumulators[row * kVectors + v];
      accumulator = accumulate<F>(accumulator, sums[row][v], group.scales[v], group.minima[v], activations);
    }
  }
}

template <class F, class Product>
void multiply_rows(const uint8_t* panel, int64_t in_features, const Rows<typename Product::Activation>& rows,
                   f32v* accumulators) {
  const int64_t num_groups = in_features / F::kGroup;
  for (int64_t i = 0; i < rows.count * kVectors; ++i) accumulators[i] = f32v{};
  Unpacked<F, Product> unpacked;
  Panel<F>::for_each_group(panel, in_features, [&](const uint8_t* header, const uint8_t* group, int64_t index) {
    unpacked.read(header, group);
    const auto* x = rows.x + index * F::kGroup;
    const float* group_sums = rows.group_sums + index;
    int64_t row = 0;
    for (; row + kTileRows <= rows.count; row += kTileRows)
      multiply_tile<F, Product, kTileRows>(unpacked, x + row * rows.stride, rows.stride,
                                           group_sums + row * num_groups, num_groups,
                                           accumulators + row * kVectors);
    for (; row < rows.count; ++row)
      multiply_tile<F, Product, 1>(unpacked, x + row * rows.stride, rows.stride,
                                   group_sums + row * num_groups, num_groups, accumulators + row * kVectors);
  });
}

// ---- chunks: some rows times some panels ----

int64_t panels_per_chunk(const Call& call) {
  const int64_t num_panels = chunks_of(call.operand<const Linear>(1)->out_features, kPanel);
  return std::max<int64_t>(1, num_panels / (8 * call.num_threads));
}

template <class F, class T>
void run_chunk(const Call& call, int64_t chunk, Scratch& scratch) {
  using Product = ProductOf<T>;
  using Activation = typename Product::Activation;
  const auto& linear = *call.operand<const Linear>(1);
  const int64_t in_features = linear.in_features, num_groups = in_features / F::kGroup;
  const int64_t per_chunk = panels_per_chunk(call), num_panels = chunks_of(linear.out_features, kPanel);
  const int64_t chunks_across = chunks_of(num_panels, per_chunk);
  const Range panels = range_of(chunk % chunks_across, per_chunk, num_panels);
  const Range range = range_of(chunk / chunks_across, kRowsPerChunk, call.size(0));

  const int64_t num_rows = range.end - range.begin;
  const int64_t num_sums = F::Scales::kHasMinimum ? num_rows * num_groups : 0;
  const int64_t num_widened = std::is_same_v<T, Activation> ? 0 : num_rows * in_features;
  auto* memory = scratch.array<float>(static_cast<size_t>(num_rows * kPanel + num_sums + num_widened));
  auto* accumulators = reinterpret_cast<f32v*>(memory);
  float* sums = memory + num_rows * kPanel;

  Rows<Activation> rows{nullptr, call.size(1), num_rows, sums};
  const T* x = call.operand<const T>(0) + range.begin * call.size(1);
  if constexpr (std::is_same_v<T, Activation>) {
    rows.x = x;
  } else {
    float* widened = sums + num_sums;
    for (int64_t row = 0; row < num_rows; ++row)
      for (int64_t i = 0; i < in_features; i += kLanes)
        store(widened + row * in_features + i, load(x + row * call.size(1) + i));
    rows.x = widened, rows.stride = in_features;
  }
  if constexpr (F::Scales::kHasMinimum) sum_groups<F>(rows, num_groups, sums);

  for (int64_t index = panels.begin; index < panels.end; ++index) {
    const uint8_t* panel = static_cast<const uint8_t*>(linear.data) + index * Panel<F>::bytes(in_features);
    if (num_rows < kFewRows) {
      for (int64_t row = 0; row < num_rows; ++row)
        multiply_row<F, Product>(panel, in_features, rows.x + row * rows.stride, sums + row * num_groups,
                                 accumulators + row * kVectors);
    } else {
      multiply_rows<F, Product>(panel, in_features, rows, accumulators);
    }
    store_sums<T>(call, accumulators, index, range);
  }
}

template <class F>
void run_format(const Call& call, int64_t chunk, Scratch& scratch) {
  switch (call.instruction.element) {
    case Element::f32: return run_chunk<F, float>(call, chunk, scratch);
    case Element::bf16: return run_chunk<F, bf16>(call, chunk, scratch);
    case Element::f16: return run_chunk<F, f16>(call, chunk, scratch);
    default: return;
  }
}

}  // namespace

bool pack_quantized(Linear& linear, const void* rows, int64_t row_bytes) {
  switch (linear.scheme) {
    case Scheme::q4_0: return pack_panels<Q4_0>(linear, rows, row_bytes);
    case Scheme::q4_1: return pack_panels<Q4_1>(linear, rows, row_bytes);
    case Scheme::q8_0: return pack_panels<Q8_0>(linear, rows, row_bytes);
    case Scheme::q4_k: return pack_panels<Q4_K>(linear, rows, row_bytes);
    case Scheme::q6_k: return pack_panels<Q6_K>(linear, rows, row_bytes);
    default: return false;
  }
}

int64_t quantized_chunks(const Call& call) {
  const int64_t num_panels = chunks_of(call.operand<const Linear>(1)->out_features, kPanel);
  return chunks_of(num_panels, panels_per_chunk(call)) * chunks_of(call.size(0), kRowsPerChunk);
}

void run_quantized(const Call& call, int64_t chunk, Scratch& scratch) {
  switch (call.operand<const Linear>(1)->scheme) {
    case Scheme::q4_0: return run_format<Q4_0>(call, chunk, scratch);
    case Scheme::q4_1: return run_format<Q4_1>(call, chunk, scratch);
    case Scheme::q8_0: return run_format<Q8_0>(call, chunk, scratch);
    case Scheme::q4_k: return run_format<Q4_K>(call, chunk, scratch);
    case Scheme::q6_k: return run_format<Q6_K>(call, chunk, scratch);
    default: return;
  }
}

}  // namespace octavo::OCTAVO_VARIANT
