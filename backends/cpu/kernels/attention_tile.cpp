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

// Where the keys of a tile lie, `step` at a time; they are visited in order, from a multiple of it on.
template <class Visit>
inline void for_keys(const HeadBlocks& blocks, int64_t first_key, Range keys, int64_t step, Visit visit) {
  const int64_t block_size = blocks.block_size;
  int64_t key = keys.begin / step * step;
  int64_t index = (first_key + key) / block_size, offset = first_key + key - index * block_size;
  int64_t visited = key / step;
  for (; key < keys.end; ++index, offset = 0) {
    const int64_t block = blocks.blocks[index];
    for (; offset < block_size && key < keys.end; offset += step, key += step) visit(visited++, block, offset);
  }
}

template <class Word>
void find_scales(Tile<Word>& tile, const HeadBlocks& blocks, int64_t first_key) {
  for_keys(blocks, first_key, tile.keys, kLanes, [&](int64_t panel, int64_t block, int64_t offset) {
    const float* scales = blocks.scales + block * blocks.scales_block + offset;
    tile.k_scales[panel] = scales;
    tile.v_scales[panel] = scales + blocks.block_size;
    __builtin_prefetch(tile.k_scales[panel]);  // wanted when the scores are there
    __builtin_prefetch(tile.v_scales[panel]);
  });
}

// The words of the cache are those of the products.
template <class Word>
void find_keys(Tile<Word>& tile, const HeadBlocks& blocks, int64_t first_key) {
  tile.panel_stride = blocks.block_size;
  for_keys(blocks, first_key, tile.keys, kLanes, [&](int64_t panel, int64_t block, int64_t offset) {
    tile.panels[panel] = reinterpret_cast<const Word*>(blocks.k + block * blocks.k_block) + offset;
  });
}
template <class Word>
void find_values(Tile<Word>& tile, const HeadBlocks& blocks, int64_t first_key) {
  constexpr int64_t kKeys = kKeysPerWord<Word>;
  for_keys(blocks, first_key, tile.keys, kKeys, [&](int64_t row, int64_t block, int64_t offset) {
    const auto* values = reinterpret_cast<const Word*>(blocks.v + block * blocks.v_block);
    tile.values[row] = values + offset / kKeys * blocks.head_dim;
  });
}

// As float32.
template <class Pairs>
void widen_keys(Tile<float>& tile, const HeadBlocks& blocks, int64_t first_key, float* staged) {
  const int64_t head_dim = blocks.head_dim, panel_floats = round_up(head_dim, 2) * kLanes;
  tile.panel_stride = kLanes;
  for_keys(blocks, first_key, tile.keys, kLanes, [&](int64_t panel, int64_t block, int64_t offset) {
    tile.panels[panel] = staged;
    const uint8_t* pairs = blocks.k + block * blocks.k_block + offset * Pairs::kBytes;
    for (int64_t dim = 0; dim < head_dim; dim += 2, pairs += blocks.block_size * Pairs::kBytes) {
      const Two two = Pairs::load(pairs);
      store(staged + dim * kLanes, two.even);
      store(staged + (dim + 1) * kLanes, two.odd);
    }
    staged += panel_floats;
  });
}
template <class Pairs>
void widen_values(Tile<float>& tile, const HeadBlocks& blocks, int64_t first_key, float* staged) {
  const int64_t head_dim = blocks.head_dim, row_floats = round_up(head_dim, kLanes);
  for_keys(blocks, first_key, tile.keys, 2, [&](int64_t row, int64_t block, int64_t offset) {
    float *even = staged, *odd = staged + row_floats;
    staged += 2 * row_floats;
    tile.values[2 * row] = even;
    tile.values[2 * row + 1] = odd;
    const uint8_t* pairs = blocks.v + block * blocks.v_block + offset / 2 * head_dim * Pairs::kBytes;
    for (int64_t dim = 0; dim < head_dim; dim += kLanes) {  // the cache has slack behind its last row
      const Two two = Pairs::load(pairs + dim * Pairs::kBytes);
      store(even + dim, two.even);
      store(odd + dim, two.odd);
    }
  });
}

inline void store_words(uint32_t* out, u32v words) { std::memcpy(out, &words, sizeof words); }

void widen_key_codes(Tile<uint32_t>& tile, const HeadBlocks& blocks, int64_t first_key, uint32_t* staged) {
  const int64_t steps = (blocks.head_dim + 1) / 2;
  tile.panel_stride = kLanes;
  for_keys(blocks, first_key, tile.keys, kLanes, [&](int64_t panel, int64_t block, int64_t offset) {
    tile.panels[panel] = staged;
    const uint8_t* pairs = blocks.k + block * blocks.k_block + offset * 2;
    for (int64_t step = 0; step < steps; ++step, staged += kLanes, pairs += blocks.block_size * 2)
      store_words(staged, load_words(reinterpret_cast<const uint16_t*>(pairs)));
  });
}
void widen_value_codes(Tile<uint32_t>& tile, const HeadBlocks& blocks, int64_t first_key, uint32_t* staged) {
  const int64_t head_dim = blocks.head_dim;
  for_keys(blocks, first_key, tile.keys, 2, [&](int64_t row, int64_t block, int64_t offset) {
    tile.values[row] = staged;
    const uint8_t* pairs = blocks.v + block * blocks.v_block + offset * head_dim;
    for (int64_t dim = 0; dim < head_dim; dim += kLanes, staged += kLanes)
      store_words(staged, load_words(reinterpret_cast<const uint16_t*>(pairs) + dim));
  });
}

// What lies beside the keys that may be read can be anything, NaN too, and 0 * NaN is not 0: where
// only one of a pair is a key, take the pair from a copy whose other half is 0.
template <class Word>
void clear_edge(Tile<Word>& tile, int64_t row, Word mask, int64_t head_dim, Word* edge) {
  for (int64_t dim = 0; dim < head_dim; ++dim) edge[dim] = tile.values[row][dim] & mask;
  tile.values[row] = edge;
}
template <class Word>
void clear_edges(Tile<Word>& tile, int64_t head_dim, Word* edges) {
  constexpr int kHalfBits = 4 * sizeof(Word);
  constexpr Word kFirst = static_cast<Word>(~Word(0)) >> kHalfBits, kSecond = static_cast<Word>(~kFirst);
  if (tile.keys.begin % 2 != 0) clear_edge<Word>(tile, tile.keys.begin / 2, kSecond, head_dim, edges);
  if (tile.keys.end % 2 != 0)
    clear_edge<Word>(tile, tile.keys.end / 2, kFirst, head_dim, edges + round_up(head_dim, kLanes));
}

}  // namespace

void prepare_keys(Tile<float>& tile, const HeadBlocks& blocks, int64_t first_key, float* staged) {
  switch (blocks.element) {
    case Element::f32: return find_keys(tile, blocks, first_key);
    case Element::bf16: return widen_keys<Bf16Pairs>(tile, blocks, first_key, staged);
    case Element::f16: return widen_keys<F16Pairs>(tile, blocks, first_key, staged);
    case Element::i8: widen_keys<I8Pairs>(tile, blocks, first_key, staged);
  }
  find_scales(tile, blocks, first_key);
}

void prepare_values(Tile<float>& tile, const HeadBlocks& blocks, int64_t first_key, float* staged, float*) {
  switch (blocks.element) {
    case Element::f32: return find_values(tile, blocks, first_key);
    case Element::bf16: return widen_values<Bf16Pairs>(tile, blocks, first_key, staged);
    case Element::f16: return widen_values<F16Pairs>(tile, blocks, first_key, staged);
    case Element::i8: return widen_values<I8Pairs>(tile, blocks, first_key, staged);
  }
}

void prepare_keys(Tile<uint32_t>& tile, const HeadBlocks& blocks, int64_t first_key, uint32_t* staged) {
  if (blocks.element != Element::i8) return find_keys(tile, blocks, first_key);
  widen_key_codes(tile, blocks, first_key, staged);
  find_scales(tile, blocks, first_key);
}

void prepare_values(Tile<uint32_t>& tile, const HeadBlocks& blocks, int64_t first_key, uint32_t* staged,
                    uint32_t* edges) {
  const bool is_coded = blocks.element == Element::i8;
  is_coded ? widen_value_codes(tile, blocks, first_key, staged) : find_values(tile, blocks, first_key);
  clear_edges(tile, blocks.head_dim, edges);
}

void prepare_keys(Tile<uint16_t>& tile, const HeadBlocks& blocks, int64_t first_key, uint16_t*) {
  find_keys(tile, blocks, first_key);
  find_scales(tile, blocks, first_key);
}

void prepare_values(Tile<uint16_t>& tile, const HeadBlocks& blocks, int64_t first_key, uint16_t*,
                    uint16_t* edges) {
  find_values(tile, blocks, first_key);
  clear_edges(tile, blocks.head_dim, edges);
}

}  // namespace octavo::OCTAVO_VARIANT
