// One tile of a sequence's keys and values, ready for the products: found in the cache where it has
// the words that they take, widened into scratch memory otherwise.
#pragma once

#include "attention.h"
#include "attention_product.h"

namespace octavo::OCTAVO_VARIANT {

// A word of values belongs to one key, or is a pair of neighbouring keys.
template <class Word>
constexpr int64_t kKeysPerWord = 1;
template <>
inline constexpr int64_t kKeysPerWord<uint32_t> = 2;
template <>
inline constexpr int64_t kKeysPerWord<uint16_t> = 2;

template <class Word>
struct Tile {
  Range keys;  // what may be read, from the tile's first key on
  const Word* panels[kTileKeys / kLanes];      // kLanes keys: [steps][kLanes], rows panel_stride apart
  const Word* values[kTileKeys];               // [head_dim], for each kKeysPerWord keys
  const float* k_scales[kTileKeys / kLanes];   // for each key, or nullptr
  const float* v_scales[kTileKeys / kLanes];
  int64_t panel_stride;
};

// One sequence's blocks of one KV head.
struct HeadBlocks {
  HeadBlocks(const Call& call, const AttentionShape& shape, const int32_t* blocks, int64_t kv_head)
      : blocks(blocks), block_size(shape.block_size), head_dim(shape.head_dim), element(shape.cache) {
    const int64_t bytes = element == Element::f32 ? 4 : element == Element::i8 ? 1 : 2;
    const int64_t k_dim = element == Element::f32 ? head_dim : round_up(head_dim, 2);
    const int64_t k_bytes = k_dim * block_size * bytes, v_bytes = head_dim * block_size * bytes;
    k = call.operand<const uint8_t>(1) + kv_head * k_bytes;
    v = call.operand<const uint8_t>(2) + kv_head * v_bytes;
    k_block = k_bytes * shape.kv_heads;
    v_block = v_bytes * shape.kv_heads;
    if (const float* all = call.operand<const float>(3)) scales = all + kv_head * 2 * block_size;
    scales_block = shape.kv_heads * 2 * block_size;
  }

  const int32_t* blocks;
  int64_t block_size, head_dim;
  Element element;
  const uint8_t *k, *v;
  const float* scales = nullptr;
  int64_t k_block, v_block, scales_block;  // from block to block
};

// What the widened keys of a tile take, and its values.
template <class Word>
int64_t staged_words(const AttentionShape& shape) {
  return kTileKeys * round_up(shape.head_dim, 16) / kKeysPerWord<Word>;
}

// Fill in `panels` and what belongs to them; `staged` has room for staged_words. `keys` is given.
void prepare_keys(Tile<float>& tile, const HeadBlocks& blocks, int64_t first_key, float* staged);
void prepare_keys(Tile<uint32_t>& tile, const HeadBlocks& blocks, int64_t first_key, uint32_t* staged);
void prepare_keys(Tile<uint16_t>& tile, const HeadBlocks& blocks, int64_t first_key, uint16_t* staged);

// Fill in `values`; `staged` the same, `edges` has room for two rows.
void prepare_values(Tile<float>& tile, const HeadBlocks& blocks, int64_t first_key, float* staged,
                    float* edges);
void prepare_values(Tile<uint32_t>& tile, const HeadBlocks& blocks, int64_t first_key, uint32_t* staged,
                    uint32_t* edges);
void prepare_values(Tile<uint16_t>& tile, const HeadBlocks& blocks, int64_t first_key, uint16_t* staged,
                    uint16_t* edges);

}  // namespace octavo::OCTAVO_VARIANT
