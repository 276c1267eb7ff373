// Integer probabilities of tokens, equal to the bit on every processor.
//
// octavo.ops.sampling_weights defines them: steps = round(min((largest - logit) * steps_per_logit,
// 26 * 2^14)) in float32, and weight = 2^24 * 2^(-steps / 2^14) through a polynomial in int32.
#pragma once

#include "simd.h"

namespace octavo::OCTAVO_VARIANT {

constexpr int kStepBits = 14, kUnitBits = 24;
constexpr int32_t kUnit = 1 << kUnitBits;
constexpr float kLimitSteps = 26 << kStepBits;  // weight 0 from here on

inline float steps_per_logit(float temperature) {
  return static_cast<float>(1.4426950408889634 * (1 << kStepBits)) / temperature;
}

inline i32v weights_of_steps(i32v steps) {
  const i32v fraction = steps & ((1 << kStepBits) - 1);
  i32v slope = 7076 - ((fraction * 946) >> kStepBits);
  slope = 31444 - ((fraction * slope) >> kStepBits);
  slope = 90849 - ((fraction * slope) >> kStepBits);
  const i32v power = 2 * kUnit - ((fraction * slope) >> 6);
  return ((power >> (steps >> kStepBits)) + 1) >> 1;
}

// What is -inf has no weight.
inline i32v weights_of(f32v logits, f32v largest, f32v per_logit) {
  const f32v steps = (largest - logits) * per_logit;
  const f32v bounded = steps < kLimitSteps ? steps : splat(kLimitSteps);
  // Adding 2^23 rounds half to even and leaves the whole number in the low bits.
  return weights_of_steps(reinterpret_cast<i32v>(as_bits(bounded + 0x1p23f) & 0x7fffff));
}

// A fraction of 0 to 1 in parts of 2^24, rounded up.
inline int64_t to_units(float fraction) {
  return static_cast<int64_t>(std::ceil(fraction * static_cast<float>(kUnit)));
}

// floor(total * units / 2^24); the product itself may need more than 64 bits.
inline int64_t fraction_of(int64_t total, int64_t units) {
  return (total >> kUnitBits) * units + (((total & (kUnit - 1)) * units) >> kUnitBits);
}

// The sum of those of `count` weights, a multiple of kLanes, that are at least `lightest`.
inline int64_t sum_of_weights(const int32_t* weights, int64_t count, int32_t lightest) {
  // In two parts of 12 bits, neither of which leaves an int32 before 2^18 additions.
  i32v high{}, low{};
  for (int64_t i = 0; i < count; i += kLanes) {
    i32v lanes;
    std::memcpy(&lanes, weights + i, sizeof lanes);
    lanes = lanes >= lightest ? lanes : i32v{};
    high += lanes >> 12;
    low += lanes & 0xfff;
  }
  int64_t sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += (static_cast<int64_t>(high[lane]) << 12) + low[lane];
  return sum;
}

}  // namespace octavo::OCTAVO_VARIANT
