// How the codes of a group of weights lie in a panel, and how they become numbers.
//
// A word is what is unpacked at once: some codes (kPerWord, along k) of each of kLanes columns. Lane
// by lane, so that a lane's bits are its column's own. `place` writes one column's codes of a word;
// `code` takes them out again, step by step.
#pragma once

#include "product.h"

namespace octavo::OCTAVO_VARIANT {

inline u32v load_bits(const uint8_t* p) {
  u32v x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
inline f32v to_float(u32v small) { return __builtin_convertvector(reinterpret_cast<i32v>(small), f32v); }

// 16 numbers of 4 bits, less `kOffset`: a lane holds eight, the even ones in its lower half. A shift of
// both halves then brings a pair to the bottom.
template <int kOffset>
struct Nibbles {
  static constexpr int kBits = 4, kPerWord = 8;
  using Word = u32v;

  static void place(const uint8_t* codes, int lane, uint8_t* word) {
    uint32_t bits = 0;
    for (int i = 0; i < kPerWord; ++i) bits |= uint32_t{codes[i]} << (i / 2 * 4 + i % 2 * 16);
    std::memcpy(word + lane * 4, &bits, sizeof bits);
  }
  static Word load(const uint8_t* word) { return load_bits(word); }

  template <int kStep>
  static f32v code(Word word, FloatProduct) {
    const u32v number = (word >> (kStep / 2 * 4 + kStep % 2 * 16)) & 15;
    return to_float(number - kOffset);
  }
  template <int kStep>
  static u32v code(Word word, PairProduct) {
#if defined(__AVX512BF16__)
    // The table repeats after 16 entries: what stands above the four bits makes no difference.
    const __m512i shifted = _mm512_srli_epi16(reinterpret_cast<__m512i>(word), kStep * 4);
    return reinterpret_cast<u32v>(_mm512_permutexvar_epi16(shifted, reinterpret_cast<__m512i>(table())));
#else
    return pairs_of(code<2 * kStep>(word, FloatProduct{}), code<2 * kStep + 1>(word, FloatProduct{}));
#endif
  }

 private:
  // bfloat16 of 0 to 15, less the offset, twice.
  static u32v table() {
    u32v entries{};
    for (int i = 0; i < kLanes; ++i) {
      const float even = 2 * i % 16 - kOffset, odd = 2 * i % 16 + 1 - kOffset;
      uint32_t low, high;
      std::memcpy(&low, &even, sizeof low);
      std::memcpy(&high, &odd, sizeof high);
      entries[i] = low >> 16 | high;
    }
    return entries;
  }
};

// Signed bytes: pairs side by side.
struct Bytes {
  static constexpr int kBits = 8, kPerWord = 2;
#if defined(__AVX512F__)
  struct Word {
    __m128i first, second;  // of eight columns each
  };
#else
  using Word = u32v;
#endif

  static void place(const uint8_t* codes, int lane, uint8_t* word) { std::memcpy(word + lane * 2, codes, 2); }

#if defined(__AVX512F__)
  static Word load(const uint8_t* word) {
    const auto* halves = reinterpret_cast<const __m128i*>(word);
    return {_mm_loadu_si128(halves), _mm_loadu_si128(halves + 1)};
  }
  template <int kStep>
  static f32v code(Word word, FloatProduct) {
    const __m256i both = _mm256_set_m128i(word.second, word.first);
    const __m512i lanes = _mm512_cvtepi16_epi32(both);
    return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(lanes, 24 - 8 * kStep), 24));
  }
#else
  static Word load(const uint8_t* word) {
    u16v x;
    std::memcpy(&x, word, sizeof x);
    return __builtin_convertvector(x, u32v);
  }
  template <int kStep>
  static f32v code(Word word, FloatProduct) {
    const i32v number = reinterpret_cast<i32v>(word << (24 - 8 * kStep)) >> 24;
    return __builtin_convertvector(number, f32v);
  }
#endif
  template <int kStep>
  static u32v code(Word word, PairProduct) {
#if defined(__AVX512BF16__)
    const __m512 first = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(word.first));
    const __m512 second = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(word.second));
    const __m512bh pairs = _mm512_cvtne2ps_pbh(second, first);
    return reinterpret_cast<u32v>(pairs);
#else
    return pairs_of(code<0>(word, FloatProduct{}) , code<1>(word, FloatProduct{}));
#endif
  }
};

// 16 numbers of 6 bits, less 32: three words of 32 bits, each half of which holds eight numbers of one
// parity. Numbers 0 to 5 lie two to a word in its lower twelve bits; the upper four bits of the words
// are number 6, the two halves of 6 and 7, number 7.
struct SixBits {
  static constexpr int kBits = 6, kPerWord = 16;
  struct Word {
    u32v bits[3];
  };

  static void place(const uint8_t* codes, int lane, uint8_t* word) {
    uint32_t bits[3] = {};
    for (int parity = 0; parity < 2; ++parity) {
      const auto number = [&](int i) { return uint32_t{codes[2 * i + parity]}; };
      const uint32_t tops[3] = {number(6) & 15, number(6) >> 4 | number(7) >> 4 << 2, number(7) & 15};
      for (int i = 0; i < 3; ++i)
        bits[i] |= (number(2 * i) | number(2 * i + 1) << 6 | tops[i] << 12) << (16 * parity);
    }
    for (int i = 0; i < 3; ++i) std::memcpy(word + (i * kLanes + lane) * 4, &bits[i], 4);
  }
  static Word load(const uint8_t* word) {
    return {{load_bits(word), load_bits(word + sizeof(u32v)), load_bits(word + 2 * sizeof(u32v))}};
  }

  template <int kStep>
  static f32v code(const Word& word, FloatProduct) {
    constexpr int kPair = kStep / 2, kShift = kStep % 2 * 16;
    u32v number;
    if constexpr (kPair < 6) {
      number = word.bits[kPair / 2] >> (kShift + kPair % 2 * 6) & 63;
    } else {
      constexpr int kLow = kPair == 6 ? 0 : 2;
      const u32v top = word.bits[1] >> (kShift + 12 + kLow) & 3;
      number = (word.bits[kLow] >> (kShift + 12) & 15) | top << 4;
    }
    return to_float(number - 32);
  }
  template <int kStep>
  static u32v code(const Word& word, PairProduct) {
#if defined(__AVX512BF16__)
    // The look-up takes six bits of each half, whatever stands above them.
    const auto half = [&](int i) { return reinterpret_cast<__m512i>(word.bits[i]); };
    __m512i index;
    if constexpr (kStep < 6) {
      index = _mm512_srli_epi16(half(kStep / 2), kStep % 2 * 6);
    } else {
      constexpr int kLow = kStep == 6 ? 0 : 2;
      const __m512i low = _mm512_srli_epi16(half(kLow), 12);
      const __m512i top = _mm512_srli_epi16(half(1), kStep == 6 ? 8 : 10);
      index = _mm512_ternarylogic_epi32(low, top, _mm512_set1_epi16(0x30), 0xf8);  // low | (top & 0x30)
    }
    return reinterpret_cast<u32v>(_mm512_permutex2var_epi16(
        reinterpret_cast<__m512i>(table(0)), index, reinterpret_cast<__m512i>(table(32))));
#else
    return pairs_of(code<2 * kStep>(word, FloatProduct{}), code<2 * kStep + 1>(word, FloatProduct{}));
#endif
  }

 private:
  static u32v table(int first) {
    u32v entries{};
    for (int i = 0; i < kLanes; ++i) {
      const float even = first + 2 * i - 32, odd = first + 2 * i + 1 - 32;
      uint32_t low, high;
      std::memcpy(&low, &even, sizeof low);
      std::memcpy(&high, &odd, sizeof high);
      entries[i] = low >> 16 | high;
    }
    return entries;
  }
};

}  // namespace octavo::OCTAVO_VARIANT
