// The softmax of one query over one tile of keys.
#pragma once

#include "kernels.h"

namespace octavo::OCTAVO_VARIANT {

inline i32v lane_indices() {
  static constexpr int32_t kIndices[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  i32v lanes;
  std::memcpy(&lanes, kIndices, sizeof lanes);
  return lanes;
}

// e^x for x <= 0, to 2 units in the last place; 0 below -87; e^NaN is NaN.
inline f32v exp_negative(f32v x) {
  const f32v magic = splat(0x1.8p23f);  // adding it rounds to a whole number
  const f32v bounded = x < -87.0f ? splat(-87.0f) : x;
  const f32v shifted = fma(bounded, splat(1.44269504f), magic);
  const f32v whole = shifted - magic;
  const f32v rest = fma(whole, splat(-1.42860677e-6f), fma(whole, splat(-0.693145752f), bounded));
  f32v power = splat(1.3981999507e-3f);
  power = fma(power, rest, splat(8.3334519073e-3f));
  power = fma(power, rest, splat(4.1665795894e-2f));
  power = fma(power, rest, splat(1.6666665459e-1f));
  power = fma(power, rest, splat(5.0000001201e-1f));
  power = fma(power * rest, rest, rest) + 1.0f;
  // The last bits of `shifted` are the whole number: make it an exponent.
  const f32v scale = as_f32((as_bits(shifted) + 127) << 23);
  return x < -87.0f ? f32v{} : power * scale;
}

// cap * tanh(x / cap), by (1 - e^-2y) / (1 + e^-2y) for y = |x| / cap, or a series near 0.
inline f32v soft_cap(f32v x, float cap) {
  const f32v y = x * (1.0f / cap);
  const f32v size = y < 0.0f ? -y : y;
  const f32v power = exp_negative(size * -2.0f);
  const f32v far = (1.0f - power) / (1.0f + power);
  const f32v square = size * size;
  f32v series = splat(62.0f / 2835.0f);
  series = fma(series, square, splat(-17.0f / 315.0f));
  series = fma(series, square, splat(2.0f / 15.0f));
  series = fma(series, square, splat(-1.0f / 3.0f));
  const f32v near = fma(series * square, size, size);
  const f32v tanh = size < 0.25f ? near : far;
  return (y < 0.0f ? -tanh : tanh) * cap;
}

}  // namespace octavo::OCTAVO_VARIANT
