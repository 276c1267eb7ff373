// How activations meet integer codes: pairs of bfloat16 where the processor multiplies them,
// else numbers of 32 bits. Codes are small enough to be exact in both.
#pragma once

#include <type_traits>
#include <utility>

#include "../kernels.h"

namespace octavo::OCTAVO_VARIANT {

// Call body(0), body(1), ... with constants, so that shift counts are immediates.
template <class Body, int... kIndex>
inline void unrolled(std::integer_sequence<int, kIndex...>, const Body& body) {
  (body(std::integral_constant<int, kIndex>{}), ...);
}
template <int kCount, class Body>
inline void unrolled(const Body& body) {
  unrolled(std::make_integer_sequence<int, kCount>{}, body);
}

#if defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
constexpr bool kMultipliesPairs = true;
#else
constexpr bool kMultipliesPairs = false;
#endif

// One step takes two codes of a column and two activations.
struct PairProduct {
  using Activation = bf16;
  using Code = u32v;  // two bfloat16 a lane
  static constexpr int kPerStep = 2;

  static u32v splat(const bf16* x) {
    uint32_t pair;
    std::memcpy(&pair, x, sizeof pair);
    return u32v{} + pair;
  }
  static f32v add(f32v sum, u32v codes, u32v x) { return dot(sum, codes, x); }
};

// One step takes one code of a column and one activation.
struct FloatProduct {
  using Activation = float;
  using Code = f32v;
  static constexpr int kPerStep = 1;

  static f32v splat(const float* x) { return OCTAVO_VARIANT::splat(*x); }
  static f32v add(f32v sum, f32v codes, f32v x) { return fma(codes, x, sum); }
};

template <class T>
using ProductOf = std::conditional_t<kMultipliesPairs && std::is_same_v<T, bf16>, PairProduct, FloatProduct>;

// Two vectors of whole numbers up to 256 as pairs: their float32 ends in 16 zero bits.
inline u32v pairs_of(f32v even, f32v odd) { return (as_bits(even) >> 16) | as_bits(odd); }

}  // namespace octavo::OCTAVO_VARIANT
