// Functions of float32 vectors, to a few units in the last place; NaN stays NaN.
//
// The polynomials are fitted to the smallest largest error over their intervals.
#pragma once

#include "simd.h"

namespace octavo::OCTAVO_VARIANT {

// c[0] + c[1] x + c[2] x^2 + ...
template <int kCount>
inline f32v polynomial(f32v x, const float (&c)[kCount]) {
  f32v result = splat(c[kCount - 1]);
  for (int i = kCount - 2; i >= 0; --i) result = fma(result, x, splat(c[i]));
  return result;
}

// (tanh(x) / x - 1) / x^2 below 0.625, in powers of x^2.
constexpr float kTanh[] = {-0.333332837f, 0.133314908f, -0.0537434965f, 0.0206505787f, -0.00571703678f};
// erf(x) / x below 1, in powers of x^2.
constexpr float kErf[] = {1.12837911f, -0.37612626f, 0.112835854f, -0.026853811f, 0.00518832775f,
                           -0.000801019254f, 7.85385782e-05f};
// log(1 - erf(x)) from 1 to 4, in powers of x.
constexpr float kLogErfc[] = {0.000188040227f, -1.12957847f, -0.633219898f, -0.108418576f, 0.0252082571f,
                               -0.00420456193f, 0.000441336364f, -2.16868502e-05f};
// (sin(x) / x - 1) / x^2 up to pi / 4, in powers of x^2.
constexpr float kSin[] = {-0.166666552f, 0.00833217613f, -0.000195169763f};
// (cos(x) - 1 + x^2 / 2) / x^4 up to pi / 4, in powers of x^2.
constexpr float kCos[] = {0.0416666456f, -0.00138873642f, 2.44380899e-05f};

inline f32v absolute(f32v x) { return as_f32(as_bits(x) & 0x7fffffff); }
inline f32v with_sign_of(f32v magnitude, f32v x) {
  return as_f32(as_bits(magnitude) | (as_bits(x) & 0x80000000));
}

inline f32v tanh(f32v x) {
  const f32v magnitude = absolute(x), square = x * x;
  const f32v small = fma(magnitude * square, polynomial(square, kTanh), magnitude);
  const f32v large = 1.0f - 2.0f / (exp(magnitude + magnitude) + 1.0f);
  return with_sign_of(magnitude < 0.625f ? small : large, x);
}

inline f32v erf(f32v x) {
  const f32v magnitude = absolute(x), square = x * x;
  const f32v small = magnitude * polynomial(square, kErf);
  // 1 - erf(x) is e to the power of a polynomial, and nothing beyond 4.
  const f32v bounded = magnitude > 4.0f ? splat(4.0f) : magnitude;
  const f32v large = 1.0f - exp(polynomial(bounded, kLogErfc));
  const f32v result = with_sign_of(magnitude < 1.0f ? small : large, x);
  return x == x ? result : x;
}

// x / (1 + e^-x) through e^-|x|, which cannot overflow.
inline f32v silu(f32v x) {
  const f32v decay = exp(-absolute(x));
  return x * (x >= 0.0f ? splat(1.0f) : decay) / (1.0f + decay);
}

inline f32v gelu_tanh(f32v x) {
  const f32v inner = 0.797884561f * (x + 0.044715f * x * x * x);  // sqrt(2 / pi)
  return 0.5f * x * (1.0f + tanh(inner));
}
inline f32v gelu_erf(f32v x) { return 0.5f * x * (1.0f + erf(x * 0.707106781f)); }

struct CosSin {
  f32v cos, sin;
};

// Of the angle rest + quarter * pi / 2, where rest is at most pi / 4 and quarter 0 to 3.
inline CosSin cos_sin(f32v rest, i32v quarter) {
  const f32v square = rest * rest;
  const f32v sine = fma(rest * square, polynomial(square, kSin), rest);
  const f32v cosine = fma(square * square, polynomial(square, kCos), fma(square, splat(-0.5f), splat(1.0f)));
  const i32v swapped = (quarter & 1) != 0;
  const f32v cos = swapped ? sine : cosine, sin = swapped ? cosine : sine;
  const u32v quarter_bits = reinterpret_cast<u32v>(quarter);
  return {as_f32(as_bits(cos) ^ (((quarter_bits + 1) & 2) << 30)),
          as_f32(as_bits(sin) ^ ((quarter_bits & 2) << 30))};
}

}  // namespace octavo::OCTAVO_VARIANT
