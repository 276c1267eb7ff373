// What a step's plan says, as octavo_cpu/native/plan.py writes it: one int32 array per KV group.
#pragma once

#include "kernels.h"

namespace octavo::OCTAVO_VARIANT {

// Keys at positions [i * kTileKeys, (i + 1) * kTileKeys) are a tile: a softmax and a sum of its own.
constexpr int64_t kTileKeys = 256;

// What one thread takes for one KV head.
struct Item {
  int32_t seq, first_token, num_queries, first_tile, num_tiles;
  int32_t first_partial;  // -1: the item goes over every tile itself
};

// A sequence whose tiles several items share; partial result first_partial + tile * num_queries + query.
struct Split {
  int32_t seq, first_token, num_queries, num_tiles, first_partial;
};

class Plan {
 public:
  explicit Plan(const int32_t* buffer) : buffer_(buffer) {}
  int64_t num_items() const { return buffer_[10]; }
  int64_t num_splits() const { return buffer_[11]; }
  int64_t num_partials() const { return buffer_[12]; }
  int64_t scratch_floats() const { return buffer_[13]; }
  int64_t tiles_read() const { return buffer_[15]; }
  int64_t query_tiles() const { return buffer_[16]; }
  int64_t slot(int64_t token) const { return part(4)[token]; }
  int64_t query_start(int64_t seq) const { return part(5)[seq]; }
  int64_t seq_len(int64_t seq) const { return part(6)[seq]; }
  const int32_t* blocks(int64_t seq) const { return part(7) + seq * buffer_[3]; }
  Item item(int64_t index) const { return row<Item>(8, index); }
  Split split(int64_t index) const { return row<Split>(9, index); }

 private:
  const int32_t* part(int offset) const { return buffer_ + buffer_[offset]; }
  template <class T>
  T row(int offset, int64_t index) const {
    T fields;
    std::memcpy(&fields, part(offset) + index * static_cast<int64_t>(sizeof(T) / 4), sizeof(T));
    return fields;
  }
  const int32_t* buffer_;
};

}  // namespace octavo::OCTAVO_VARIANT
