// The two products of attention over one tile, for a few rows (queries of heads that share keys).
//
// Words are what one lane multiplies: a float, or a pair of bfloat16 (uint32_t); the cache may hold a
// pair as int8 (uint16_t), which bfloat16 has exactly. Each sum has one
// accumulator and runs in order, however many rows and columns go side by side.
#pragma once

#include "kernels.h"

namespace octavo::OCTAVO_VARIANT {

constexpr int kMaxRows = 6;
#if defined(__AVX512F__) || defined(__aarch64__) || defined(__powerpc64__)
constexpr int kColumns = 4;  // vectors side by side, where there are 32 registers
#else
constexpr int kColumns = 2;
#endif

inline f32v multiply_add(f32v acc, f32v a, f32v b) { return fma(a, b, acc); }
inline f32v multiply_add(f32v acc, u32v a, u32v b) { return dot(acc, a, b); }

inline f32v load_words(const float* p) { return load(p); }
inline u32v load_words(const uint32_t* p) {
  u32v x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
inline u32v load_words(const uint16_t* p) {
#if defined(__AVX512BF16__)
  const auto* codes = reinterpret_cast<const __m128i*>(p);
  const __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(codes)));
  const __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(codes + 1)));
  return reinterpret_cast<u32v>(_mm512_cvtne2ps_pbh(high, low));
#else
  u16v packed;
  std::memcpy(&packed, p, sizeof packed);
  const u32v pairs = __builtin_convertvector(packed, u32v);
  const f32v even = __builtin_convertvector(reinterpret_cast<i32v>(pairs << 24) >> 24, f32v);
  const f32v odd = __builtin_convertvector(reinterpret_cast<i32v>(pairs << 16) >> 24, f32v);
  return (as_bits(even) >> 16) | (as_bits(odd) & 0xffff0000);
#endif
}
inline f32v splat_word(const float* p) { return splat(*p); }
inline u32v splat_word(const uint32_t* p) { return u32v{} + *p; }

// With few rows the products wait for memory: ask for what comes next in time.
template <int R>
constexpr bool kAsksAhead = R < kMaxRows;
constexpr int64_t kRowsAhead = 12;

// out[r][p * kLanes ..] = sum over steps of a[r][step] * panels[p][step * stride ..]; `next` are the
// panels after these, asked for in time.
template <class Word, class Stored, int R, int P>
inline void score_panels(const Word* a, int64_t steps, const Stored* const* panels,
                         const Stored* const* next,
                         int64_t stride, float* out, int64_t out_row) {
  f32v acc[R][P] = {};
  const Stored *b[P], *ahead[P];
  for (int p = 0; p < P; ++p) {
    b[p] = panels[p];
    ahead[p] = next[p];
  }
  for (int64_t step = 0; step < steps; ++step) {
    decltype(load_words(b[0])) lanes[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      lanes[p] = load_words(b[p] + step * stride);
      if (kAsksAhead<R>) __builtin_prefetch(ahead[p] + step * stride);
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const auto word = splat_word(a + r * steps + step);
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) acc[r][p] = multiply_add(acc[r][p], word, lanes[p]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) store(out + r * out_row + p * kLanes, acc[r][p]);
  }
}

// out[r][c * kLanes ..] = sum over i in [begin, end) of a[r][i] * rows[i][c * kLanes ..]
template <class Word, class Stored, int R, int C>
inline void weigh_rows(const Word* a, int64_t a_row, const Stored* const* rows, int64_t begin, int64_t end,
                       int64_t column, float* out, int64_t out_row) {
  f32v acc[R][C] = {};
  for (int64_t i = begin; i < end; ++i) {
    const Stored* b = rows[i] + column;
    const Stored* ahead = rows[std::min(i + kRowsAhead, end - 1)] + column;
    decltype(load_words(b)) lanes[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      lanes[c] = load_words(b + c * kLanes);
      if (kAsksAhead<R>) __builtin_prefetch(ahead + c * kLanes);
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const auto word = splat_word(a + r * a_row + i);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) acc[r][c] = multiply_add(acc[r][c], word, lanes[c]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) store(out + r * out_row + column + c * kLanes, acc[r][c]);
  }
}

}  // namespace octavo::OCTAVO_VARIANT
