// The weight formats: GGUF's blocks (as core's octavo/loading/gguf_quants.py and gguf_kquants.py read
// them), and what of them lies in a panel.
//
// A weight is scale * code + minimum, with one scale and minimum for a group of weights. A panel keeps
// the blocks' own numbers; only the six-bit scales of Q4_K take a byte each (4.625 bits a weight
// instead of 4.5). Products of a float16 and such a number are exact in float32.
#pragma once

#include "codes.h"

namespace octavo::OCTAVO_VARIANT {

// One column's scale and minimum in one group, as the block has them.
struct Scaling {
  uint16_t scale, minimum;  // float16
  int8_t scale_factor, minimum_factor;
};

// A float16 or two for each column and group, behind its codes.
template <bool kMinimum>
struct GroupScales {
  static constexpr bool kHasMinimum = kMinimum;
  static constexpr int kHeaderBytes = 0, kGroupBytes = kMinimum ? 4 : 2;  // a column

  static void place(const Scaling& scaling, int column, int panel, uint8_t*, uint8_t* group) {
    std::memcpy(group + 2 * column, &scaling.scale, 2);
    if (kMinimum) std::memcpy(group + 2 * (panel + column), &scaling.minimum, 2);
  }
  static f32v scale(const uint8_t*, const uint8_t* group, int column, int) {
    return load(reinterpret_cast<const f16*>(group) + column);
  }
  static f32v minimum(const uint8_t*, const uint8_t* group, int column, int panel) {
    return load(reinterpret_cast<const f16*>(group) + panel + column);
  }
};

// The same for each column and block, before its groups, and a factor of a byte for each group. A
// minimum is taken off.
template <bool kMinimum>
struct BlockScales {
  static constexpr bool kHasMinimum = kMinimum;
  static constexpr int kHeaderBytes = kMinimum ? 4 : 2, kGroupBytes = kMinimum ? 2 : 1;

  static void place(const Scaling& scaling, int column, int panel, uint8_t* header, uint8_t* group) {
    GroupScales<kMinimum>::place(scaling, column, panel, nullptr, header);
    std::memcpy(group + column, &scaling.scale_factor, 1);
    if (kMinimum) std::memcpy(group + panel + column, &scaling.minimum_factor, 1);
  }
  static f32v scale(const uint8_t* header, const uint8_t* group, int column, int) {
    return load(reinterpret_cast<const f16*>(header) + column) *
           load(reinterpret_cast<const int8_t*>(group) + column);
  }
  static f32v minimum(const uint8_t* header, const uint8_t* group, int column, int panel) {
    return -(load(reinterpret_cast<const f16*>(header) + panel + column) *
             load(reinterpret_cast<const int8_t*>(group) + panel + column));
  }
};

inline uint16_t read_half(const uint8_t* p) {
  uint16_t half;
  std::memcpy(&half, p, sizeof half);
  return half;
}

// 32 codes: the low halves of 16 bytes, then the high ones.
inline void read_nibbles(const uint8_t* packed, uint8_t* codes) {
  for (int i = 0; i < 16; ++i) {
    codes[i] = packed[i] & 15;
    codes[16 + i] = packed[i] >> 4;
  }
}

struct Q4_0 {
  using Codes = Nibbles<8>;
  using Scales = GroupScales<false>;
  static constexpr int kGroup = 32, kGroups = 1, kBlockBytes = 18;

  static Scaling read(const uint8_t* block, int, uint8_t* codes) {
    read_nibbles(block + 2, codes);
    return {read_half(block), 0, 0, 0};
  }
};

struct Q4_1 {
  using Codes = Nibbles<0>;
  using Scales = GroupScales<true>;
  static constexpr int kGroup = 32, kGroups = 1, kBlockBytes = 20;

  static Scaling read(const uint8_t* block, int, uint8_t* codes) {
    read_nibbles(block + 4, codes);
    return {read_half(block), read_half(block + 2), 0, 0};
  }
};

struct Q8_0 {
  using Codes = Bytes;
  using Scales = GroupScales<false>;
  static constexpr int kGroup = 32, kGroups = 1, kBlockBytes = 34;

  static Scaling read(const uint8_t* block, int, uint8_t* codes) {
    std::memcpy(codes, block + 2, 32);
    return {read_half(block), 0, 0, 0};
  }
};

struct Q4_K {
  using Codes = Nibbles<0>;
  using Scales = BlockScales<true>;
  static constexpr int kGroup = 32, kGroups = 8, kBlockBytes = 144;

  // Groups 2i and 2i + 1 are the low and high halves of the same 32 bytes. Factors 0 to 3 lie in the
  // low six bits of bytes 0 to 3 (4 to 7 for minima); the others have four bits in bytes 8 to 11 and
  // the upper two at the top of bytes 0 to 7.
  static Scaling read(const uint8_t* block, int group, uint8_t* codes) {
    const uint8_t* packed = block + 16 + group / 2 * 32;
    for (int i = 0; i < 32; ++i) codes[i] = packed[i] >> (group % 2 * 4) & 15;
    const uint8_t* factors = block + 4;
    int scale = factors[group % 4], minimum = factors[4 + group % 4];
    if (group < 4) {
      scale &= 63, minimum &= 63;
    } else {
      const int rest = factors[4 + group];
      scale = (rest & 15) | scale >> 6 << 4;
      minimum = rest >> 4 | minimum >> 6 << 4;
    }
    return {read_half(block), read_half(block + 2), static_cast<int8_t>(scale), static_cast<int8_t>(minimum)};
  }
};

struct Q6_K {
  using Codes = SixBits;
  using Scales = BlockScales<false>;
  static constexpr int kGroup = 16, kGroups = 16, kBlockBytes = 210;

  // Each half of the block (128 weights) takes 64 bytes of low halves and 32 of upper pairs of bits:
  // weight 32 i + j has its low bits in byte (32 i + j) % 64, low halves first, and its upper ones in
  // bits 2 i and 2 i + 1 of byte j.
  static Scaling read(const uint8_t* block, int group, uint8_t* codes) {
    const int run = group % 8 / 2, start = group % 2 * 16;  // within one of four runs of 32 weights
    const uint8_t* low = block + group / 8 * 64 + run % 2 * 32 + start;
    const uint8_t* pairs = block + 128 + group / 8 * 32 + start;
    for (int i = 0; i < 16; ++i)
      codes[i] = static_cast<uint8_t>((low[i] >> (run / 2 * 4) & 15) | (pairs[i] >> (run * 2) & 3) << 4);
    return {read_half(block + 208), 0, static_cast<int8_t>(block[192 + group]), 0};
  }
};

}  // namespace octavo::OCTAVO_VARIANT
