#include "attention_tile.h"

namespace octavo::OCTAVO_VARIANT {
namespace {

// Two neighbouring numbers in each lane, in float32.
struct Two {
  f32v even, odd;
};

inline u32v load_pairs(const void* p) {
  u32v pairs;
  std::memcpy(&pairs, p, sizeof pairs);
  return pairs;
}

inline f32v widen_half(u32v half) {
  const u16v kept = __builtin_convertvector(half, u16v);
  f16 lanes[kLanes];
  std::memcpy(lanes, &kept, sizeof kept);
  return load(lanes);
}

struct Bf16Pairs {
  static constexpr int64_t kBytes = 4;
  static Two load(const uint8_t* p) {
    const u32v pairs = load_pairs(p);
    return {as_f32(pairs << 16), as_f32(pairs & 0xffff0000)};
  }
};
struct F16Pairs {
  static constexpr int64_t kBytes = 4;
  static Two load(const uint8_t* p) {
    const u32v pairs = load_pairs(p);
    return {widen_half(pairs & 0xffff), widen_half(pairs >> 16)};
  }
};
struct I8Pairs {
  static constexpr int64_t kBytes = 2;
  static Two load(const uint8_t* p) {
    u16v packed;
    std::memcpy(&packed, p, sizeof packed);
    const i32v pairs = reinterpret_cast<i32v>(__builtin_convertvector(packed, u32v) << 16);
    const i32v even = reinterpret_cast<i32v>(reinterpret_cast<u32v>(pairs) << 8) >> 24, odd = pairs >> 24;
    return {__builtin_convertvector(even, f32v), __builtin_convertvector(odd, f32v)};
  }
};

// A row of pairs that may end within a vector, or within a pair.
template <class Pairs, class Store>
inline void for_pairs(const uint8_t* p, int64_t count, Store store) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(i, Pairs::load(p + i * Pairs::kBytes));
  if (i < count) {
    uint8_t rest[kLanes * Pairs::kBytes] = {};
    std::memcpy(rest, p + i * Pairs::kBytes, static_cast<size_t>((count - i) * Pairs::kBytes));
    store(i, Pairs::load(rest));
  }
}

// Where the keys of a tile lie; they are visited in order, from an even key on.
template <class Visit>
inline void for_keys(const HeadBlocks& blocks, int64_t first_key, Range keys, int64_t step, Visit visit) {
  for (int64_t key = keys.begin / step * step; key < keys.end; key += step) {
    const int64_t position = first_key + key;
    visit(key / step, blocks.blocks[position / blocks.block_size], position % blocks.block_size);
  }
}

template <class Word>
void find_scales(Tile<Word>& tile, const HeadBlocks& blocks, int64_t first_key) {
  for_keys(blocks, first_key, tile.keys, kLanes, [&](int64_t panel, int64_t block, int64_t offset) {
    const float* scales = blocks.scales + block * blocks.scales_block + offset;
    tile.k_scales[panel] = scales;
    tile.v_scales[panel] = scales + blocks.block_size;
  });
}

// The words of the cache are those of the products.
template <class Word>
void find(Tile<Word>& tile, const HeadBlocks& blocks, int64_t first_key) {
  tile.panel_stride = blocks.block_size;
  for_keys(blocks, first_key, tile.keys, kLanes, [&](int64_t panel, int64_t block, int64_t offset) {
    tile.panels[panel] = reinterpret_cast<const Word*>(blocks.k + block * blocks.k_block) + offset;
  });
  constexpr int64_t kKeys = kKeysPerWord<Word>;
  for_keys(blocks, first_key, tile.keys, kKeys, [&](int64_t row, int64_t block, int64_t offset) {
    const auto* values = reinterpret_cast<const Word*>(blocks.v + block * blocks.v_block);
    tile.values[row] = values + offset / kKeys * blocks.head_dim;
  });
}

// Keys and values as float32.
template <class Pairs>
void widen(Tile<float>& tile, const HeadBlocks& blocks, int64_t first_key, float* staged) {
  const int64_t head_dim = blocks.head_dim, row_floats = round_up(head_dim, kLanes) + kLanes;
  tile.panel_stride = kLanes;
  for_keys(blocks, first_key, tile.keys, kLanes, [&](int64_t panel, int64_t block, int64_t offset) {
    float* out = staged;
    tile.panels[panel] = out;
    staged += row_floats * kLanes;
    const uint8_t* pairs = blocks.k + block * blocks.k_block + offset * Pairs::kBytes;
    for (int64_t dim = 0; dim < head_dim; dim += 2, pairs += blocks.block_size * Pairs::kBytes) {
      const Two two = Pairs::load(pairs);
      store(out + dim * kLanes, two.even);
      if (dim + 1 < head_dim) store(out + (dim + 1) * kLanes, two.odd);
    }
  });
  for_keys(blocks, first_key, tile.keys, 2, [&](int64_t row, int64_t block, int64_t offset) {
    float *even = staged, *odd = staged + row_floats;
    staged += 2 * row_floats;
    tile.values[2 * row] = even;
    tile.values[2 * row + 1] = odd;
    const uint8_t* pairs = blocks.v + block * blocks.v_block + offset / 2 * head_dim * Pairs::kBytes;
    for_pairs<Pairs>(pairs, head_dim, [&](int64_t dim, Two two) {
      store(even + dim, two.even);
      store(odd + dim, two.odd);
    });
  });
}

// int8 as pairs of bfloat16, which hold every code exactly.
inline void store_codes(uint32_t* out, Two codes) {
  const u32v pairs = (as_bits(codes.even) >> 16) | (as_bits(codes.odd) & 0xffff0000);
  std::memcpy(out, &pairs, sizeof pairs);
}

void widen_codes(Tile<uint32_t>& tile, const HeadBlocks& blocks, int64_t first_key, uint32_t* staged) {
  const int64_t head_dim = blocks.head_dim, steps = (head_dim + 1) / 2;
  const int64_t row_words = round_up(head_dim, kLanes) + kLanes;
  tile.panel_stride = kLanes;
  for_keys(blocks, first_key, tile.keys, kLanes, [&](int64_t panel, int64_t block, int64_t offset) {
    tile.panels[panel] = staged;
    const uint8_t* pairs = blocks.k + block * blocks.k_block + offset * I8Pairs::kBytes;
    for (int64_t step = 0; step < steps; ++step, staged += kLanes, pairs += blocks.block_size * 2)
      store_codes(staged, I8Pairs::load(pairs));
  });
  for_keys(blocks, first_key, tile.keys, 2, [&](int64_t row, int64_t block, int64_t offset) {
    tile.values[row] = staged;
    const uint8_t* pairs = blocks.v + block * blocks.v_block + offset / 2 * head_dim * 2;
    for_pairs<I8Pairs>(pairs, head_dim, [&](int64_t dim, Two codes) { store_codes(staged + dim, codes); });
    staged += row_words;
  });
}

// What lies beside the keys that may be read can be anything, NaN too, and 0 * NaN is not 0: where
// only one of a pair is a key, take the pair from a copy whose other half is 0.
void clear_edge(Tile<uint32_t>& tile, int64_t row, uint32_t mask, int64_t head_dim, uint32_t* edge) {
  for (int64_t dim = 0; dim < head_dim; ++dim) edge[dim] = tile.values[row][dim] & mask;
  tile.values[row] = edge;
}

}  // namespace

void prepare(Tile<float>& tile, const HeadBlocks& blocks, int64_t first_key, float* staged, float*) {
  switch (blocks.element) {
    case Element::f32: find(tile, blocks, first_key); break;
    case Element::bf16: widen<Bf16Pairs>(tile, blocks, first_key, staged); break;
    case Element::f16: widen<F16Pairs>(tile, blocks, first_key, staged); break;
    case Element::i8:
      widen<I8Pairs>(tile, blocks, first_key, staged);
      find_scales(tile, blocks, first_key);
      break;
  }
}

void prepare(Tile<uint32_t>& tile, const HeadBlocks& blocks, int64_t first_key, uint32_t* staged,
             uint32_t* edges) {
  if (blocks.element == Element::i8) {
    widen_codes(tile, blocks, first_key, staged);
    find_scales(tile, blocks, first_key);
  } else {
    find(tile, blocks, first_key);
  }
  const int64_t head_dim = blocks.head_dim, row_words = round_up(head_dim, kLanes) + kLanes;
  if (tile.keys.begin % 2 != 0) clear_edge(tile, tile.keys.begin / 2, 0xffff0000, head_dim, edges);
  if (tile.keys.end % 2 != 0) clear_edge(tile, tile.keys.end / 2, 0x0000ffff, head_dim, edges + row_words);
}

}  // namespace octavo::OCTAVO_VARIANT
