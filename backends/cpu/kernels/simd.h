// Vectors of float32 for one instruction set, over the vector extensions that GCC and Clang share.
//
// Every kernel source is compiled once per instruction set, with OCTAVO_VARIANT naming it: what is
// here lives in a namespace of that name, so that the copies never mix. Only what the extensions
// cannot say well is written with intrinsics.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__) || defined(__i386__)
// GCC's own header leaves registers undefined on purpose, and warns of it where it is inlined.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace octavo::OCTAVO_VARIANT {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float f32v __attribute__((vector_size(kLanes * 4)));
typedef int32_t i32v __attribute__((vector_size(kLanes * 4)));
typedef uint32_t u32v __attribute__((vector_size(kLanes * 4)));
typedef uint16_t u16v __attribute__((vector_size(kLanes * 2)));
typedef int8_t i8v __attribute__((vector_size(kLanes)));

// 16-bit floats as they are stored; arithmetic is in float32.
struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

inline f32v splat(float x) { return x - f32v{}; }  // to add zero would cost an addition, and -0

inline f32v as_f32(u32v bits) { return reinterpret_cast<f32v>(bits); }
inline u32v as_bits(f32v x) { return reinterpret_cast<u32v>(x); }

// a * b + c, rounded once where the processor can.
inline f32v fma(f32v a, f32v b, f32v c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
  return vfmaq_f32(c, a, b);
#elif defined(__VSX__)
  f32v result;  // one instruction; vec_madd would need altivec.h, which redefines words of C++
  for (int lane = 0; lane < kLanes; ++lane) result[lane] = __builtin_fmaf(a[lane], b[lane], c[lane]);
  return result;
#else
  return a * b + c;
#endif
}

inline f32v max(f32v a, f32v b) { return a > b ? a : b; }
inline f32v min(f32v a, f32v b) { return a < b ? a : b; }

// ---- loads and stores, widening to float32 and rounding half to even ----

inline f32v load(const float* p) {
  f32v x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
inline void store(float* p, f32v x) { std::memcpy(p, &x, sizeof x); }

inline f32v load(const bf16* p) {
  u16v x;
  std::memcpy(&x, p, sizeof x);
  return as_f32(__builtin_convertvector(x, u32v) << 16);
}

inline void store(bf16* p, f32v x) {
#if defined(__AVX512BF16__)
  const __m256bh rounded = _mm512_cvtneps_pbh(x);
  std::memcpy(p, &rounded, sizeof rounded);
#else
  const u32v bits = as_bits(x);
  const u32v rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const u32v quiet = (bits >> 16) | 0x40;  // NaN stays NaN
  const u16v kept = __builtin_convertvector(x == x ? rounded : quiet, u16v);
  std::memcpy(p, &kept, sizeof kept);
#endif
}

// IEEE binary16 by integer arithmetic, for processors without an instruction for it.
inline f32v widen_f16(u32v half) {
  const u32v sign = (half & 0x8000) << 16;
  const u32v magnitude = (half & 0x7fff) << 13;
  const f32v scaled = as_f32(magnitude) * 0x1p112f;  // also right for subnormals
  const u32v infinite = as_bits(scaled) | 0x7f800000;
  const u32v bits = (half & 0x7c00) == 0x7c00 ? infinite : as_bits(scaled);
  return as_f32(bits | sign);
}
inline u32v narrow_f16(f32v x) {
  const u32v sign = (as_bits(x) >> 16) & 0x8000;
  const u32v magnitude = as_bits(x) & 0x7fffffff;
  // Normal numbers: rebias and round on the bits. Subnormals: let an addition round.
  const u32v normal = (magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  const u32v small = as_bits(as_f32(magnitude) + 0.5f) - as_bits(splat(0.5f));
  u32v half = magnitude < (113u << 23) ? small : normal;
  half = magnitude >= 0x477ff000 ? u32v{} + 0x7c00 : half;  // 65520 and more
  half = magnitude > 0x7f800000 ? u32v{} + 0x7e00 : half;
  return half | sign;
}

inline f32v load(const f16* p) {
#if defined(__AVX512F__)
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__F16C__)
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(__aarch64__)
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p))));
#else
  u16v x;
  std::memcpy(&x, p, sizeof x);
  return widen_f16(__builtin_convertvector(x, u32v));
#endif
}

inline void store(f16* p, f32v x) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__aarch64__)
  vst1_u16(reinterpret_cast<uint16_t*>(p), vreinterpret_u16_f16(vcvt_f16_f32(x)));
#else
  const u16v half = __builtin_convertvector(narrow_f16(x), u16v);
  std::memcpy(p, &half, sizeof half);
#endif
}

inline f32v load(const int8_t* p) {
#if defined(__AVX512F__)
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__AVX2__)
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
  i8v x;
  std::memcpy(&x, p, sizeof x);
  return __builtin_convertvector(__builtin_convertvector(x, i32v), f32v);
#endif
}

// The first `count` lanes; the others are zero. Never touches memory behind them.
template <class T>
inline f32v load_part(const T* p, int count) {
  T lanes[kLanes] = {};
  std::memcpy(lanes, p, sizeof(T) * static_cast<size_t>(count));
  return load(lanes);
}

#if defined(__AVX512F__)
// Masked: what lies behind is not looked at either.
inline __mmask16 first_lanes(int count) { return static_cast<__mmask16>((1u << count) - 1); }
inline f32v load_part(const float* p, int count) { return _mm512_maskz_loadu_ps(first_lanes(count), p); }
inline void store_part(float* p, f32v x, int count) { _mm512_mask_storeu_ps(p, first_lanes(count), x); }
template <class T>
inline void store_part(T* p, f32v x, int count) {
  T lanes[kLanes];
  store(lanes, x);
  __m256i halves;
  std::memcpy(&halves, lanes, sizeof halves);
  _mm256_mask_storeu_epi16(p, first_lanes(count), halves);
}
inline f32v load_part(const bf16* p, int count) {
  const __m256i halves = _mm256_maskz_loadu_epi16(first_lanes(count), p);
  return as_f32(reinterpret_cast<u32v>(_mm512_cvtepu16_epi32(halves)) << 16);
}
inline f32v load_part(const f16* p, int count) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(count), p));
}
#else
template <class T>
inline void store_part(T* p, f32v x, int count) {
  T lanes[kLanes];
  store(lanes, x);
  std::memcpy(p, lanes, sizeof(T) * static_cast<size_t>(count));
}
#endif

// `kept` in the first `count` lanes, `others` behind them.
inline f32v keep_first(f32v kept, f32v others, int count) {
  i32v index;
  for (int lane = 0; lane < kLanes; ++lane) index[lane] = lane;
  return index < count ? kept : others;
}

// ---- rows of any length ----

// All lanes, where a count may stand as well: one loop body serves a row's whole vectors and its rest.
struct AllLanes {};
template <class T>
inline f32v load(const T* p, AllLanes) {
  return load(p);
}
template <class T>
inline f32v load(const T* p, int count) {
  return load_part(p, count);
}
template <class T>
inline void store(T* p, f32v x, AllLanes) {
  store(p, x);
}
template <class T>
inline void store(T* p, f32v x, int count) {
  store_part(p, x, count);
}

// body(i, AllLanes or how many) for the elements [i, i + kLanes) of a row of `dim`.
template <class Body>
inline void by_lanes(int64_t dim, Body body) {
  int64_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) body(i, AllLanes{});
  if (i < dim) body(i, static_cast<int>(dim - i));
}

template <class T>
inline float load_one(const T* p) {
  return load_part(p, 1)[0];
}
template <>
inline float load_one(const float* p) {
  return *p;
}
template <class T>
inline void store_one(T* p, float x) {
  store_part(p, splat(x), 1);
}
template <>
inline void store_one(float* p, float x) {
  *p = x;
}

// ---- across lanes: always in the same order, pairs first ----

// The upper half with the lower one, again and again.
template <class Join>
inline float join_lanes(f32v x, Join join) {
  typedef float f32q __attribute__((vector_size(16)));
#if defined(__AVX512F__)
  const __m256 half = join(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  const f32q quarter = join(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
#elif defined(__AVX2__)
  const f32q quarter = join(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
#else
  const f32q quarter = x;
#endif
  return join(join(quarter[0], quarter[2]), join(quarter[1], quarter[3]));
}
inline float sum(f32v x) {
  return join_lanes(x, [](auto a, auto b) { return a + b; });
}
inline float largest(f32v x) {
  return join_lanes(x, [](auto a, auto b) { return a > b ? a : b; });
}

// Whether a comparison holds in some lane.
inline bool any(i32v holds) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask(reinterpret_cast<__m512i>(holds)) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps(reinterpret_cast<__m256>(holds)) != 0;
#else
  uint64_t words[kLanes / 2], all = 0;
  std::memcpy(words, &holds, sizeof words);
  for (const uint64_t word : words) all |= word;
  return all != 0;
#endif
}

// ---- products of bfloat16 pairs ----

// acc + a0 * b0 + a1 * b1 in each lane, whose 32 bits are two bfloat16. The order of the additions is
// the processor's, and the same for every caller of one instruction set.
inline f32v dot(f32v acc, u32v a, u32v b) {
#if defined(__AVX512BF16__)
  return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
  return vbfdotq_f32(acc, reinterpret_cast<bfloat16x8_t>(a), reinterpret_cast<bfloat16x8_t>(b));
#else
  acc = fma(as_f32(a << 16), as_f32(b << 16), acc);
  return fma(as_f32(a & 0xffff0000), as_f32(b & 0xffff0000), acc);
#endif
}

// ---- functions ----

// e^x to 2 units in the last place; 0 below -87.3, infinity above 88.7; e^NaN is NaN.
inline f32v exp(f32v x) {
  const f32v clamped = min(max(x, splat(-87.33654f)), splat(88.72283f));
  const f32v magic = splat(0x1.8p23f);  // adding it rounds to a whole number
  const f32v shifted = fma(clamped, splat(1.44269504f), magic);
  const f32v whole = shifted - magic;
  const f32v rest = fma(whole, splat(-1.42860677e-6f), fma(whole, splat(-0.693145752f), clamped));
  f32v power = splat(1.9875691500e-4f);
  power = fma(power, rest, splat(1.3981999507e-3f));
  power = fma(power, rest, splat(8.3334519073e-3f));
  power = fma(power, rest, splat(4.1665795894e-2f));
  power = fma(power, rest, splat(1.6666665459e-1f));
  power = fma(power, rest, splat(5.0000001201e-1f));
  power = fma(power * rest, rest, rest) + 1.0f;
  // 2^whole in two steps, since 2^128 has no float.
  const i32v exponent = __builtin_convertvector(whole, i32v);
  const i32v half = exponent >> 1;
  const f32v first = as_f32(reinterpret_cast<u32v>((half + 127) << 23));
  const f32v second = as_f32(reinterpret_cast<u32v>((exponent - half + 127) << 23));
  const f32v result = power * first * second;
  const f32v bounded = x < -87.33654f ? splat(0.0f) : (x > 88.72283f ? splat(INFINITY) : result);
  return x == x ? bounded : x;
}

}  // namespace octavo::OCTAVO_VARIANT
