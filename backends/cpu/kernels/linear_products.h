// What one step over in_features adds to a tile of rows times a panel of columns.
#pragma once

#include <type_traits>

#include "linear_sums.h"

namespace octavo::OCTAVO_VARIANT {

// A tile is as high as the registers are many: the sums, the activations of a step, and one vector of
// weights.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kTileRows = 6;  // 24 sums in 32 registers
#elif defined(__powerpc64__)
constexpr int kTileRows = 8;  // 32 in 64
#else
constexpr int kTileRows = 3;  // 12 in 16
#endif

#if defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
constexpr bool kHasPairs = true;
#else
constexpr bool kHasPairs = false;
#endif

// sums[row][v] += weights(v) * activations(row), for a tile.
template <int kRows, class Activations, class Weights, class Add>
inline void add_tile(f32v (&sums)[kRows][kVectors], Activations activations, Weights weights, Add add) {
  decltype(activations(0)) splats[kRows];
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row) splats[row] = activations(row);
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    const auto weight = weights(v);
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) sums[row][v] = add(sums[row][v], splats[row], weight);
  }
}

inline u32v load_words(const uint32_t* words) {
  u32v loaded;
  std::memcpy(&loaded, words, sizeof loaded);
  return loaded;
}

// float32 activations times weights that are widened as they are loaded.
template <class Weight>
struct WideProduct {
  using Activation = float;
  using Word = Weight;
  static constexpr int kDepth = 1;

  template <int kRows>
  static void add(const Word* panel, const float* x, int64_t stride, f32v (&sums)[kRows][kVectors]) {
    add_tile<kRows>(
        sums, [=](int row) { return splat(x[row * stride]); },
        [=](int v) { return load(panel + v * kLanes); },
        [](f32v sum, f32v activation, f32v weight) { return fma(weight, activation, sum); });
  }
};

// float32 activations times pairs of bfloat16: the first of each pair, then the second.
struct WidePairs {
  using Activation = float;
  using Word = uint32_t;
  static constexpr int kDepth = 2;

  template <int kRows>
  static void add(const Word* panel, const float* x, int64_t stride, f32v (&sums)[kRows][kVectors]) {
    const auto add = [](f32v sum, f32v activation, f32v weight) { return fma(weight, activation, sum); };
    add_tile<kRows>(
        sums, [=](int row) { return splat(x[row * stride]); },
        [=](int v) { return as_f32(load_words(panel + v * kLanes) << 16); }, add);
    // The words are loaded again: held in registers, they would push sums out.
    asm volatile("" ::: "memory");
    add_tile<kRows>(
        sums, [=](int row) { return splat(x[row * stride + 1]); },
        [=](int v) { return as_f32(load_words(panel + v * kLanes) & 0xffff0000); }, add);
  }
};

// Pairs of bfloat16 times pairs of bfloat16, where the processor multiplies them.
struct DotPairs {
  using Activation = bf16;
  using Word = uint32_t;
  static constexpr int kDepth = 2;

  template <int kRows>
  static void add(const Word* panel, const bf16* x, int64_t stride, f32v (&sums)[kRows][kVectors]) {
    add_tile<kRows>(
        sums,
        [=](int row) {
          uint32_t pair;
          std::memcpy(&pair, x + row * stride, sizeof pair);
          return u32v{} + pair;
        },
        [=](int v) { return load_words(panel + v * kLanes); },
        [](f32v sum, u32v activation, u32v weight) { return dot(sum, weight, activation); });
  }
};

// The product of activations of one type with pairs of bfloat16.
template <class T>
using PairProduct = std::conditional_t<kHasPairs && std::is_same_v<T, bf16>, DotPairs, WidePairs>;

}  // namespace octavo::OCTAVO_VARIANT
