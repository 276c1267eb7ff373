// A paged cache, read and written one number at a time.
#pragma once

#include "array.h"

namespace octavo::check {

struct CacheShape {
  Element element;
  int64_t num_blocks, kv_heads, head_dim, block_size;
};

// The layout is that of octavo_cpu/native/caches.py.
class Cache {
 public:
  explicit Cache(const CacheShape& given);
  // Codes of int8 times their scale.
  double key(int64_t slot, int64_t head, int64_t i) const;
  double value(int64_t slot, int64_t head, int64_t i) const;
  double scale(int64_t slot, int64_t head, bool is_value) const;  // 1 but for int8
  // Store the rows of one head; int8 codes get the scale that makes the largest 127.
  void set(int64_t slot, int64_t head, const std::vector<double>& key, const std::vector<double>& value);
  void* scales_data() { return shape.element == Element::i8 ? scales.data() : nullptr; }

  const CacheShape shape;
  Array keys, values, scales;

 private:
  int64_t key_index(int64_t slot, int64_t head, int64_t i) const;
  int64_t value_index(int64_t slot, int64_t head, int64_t i) const;
  int64_t scale_index(int64_t slot, int64_t head, bool is_value) const;
  int64_t width() const { return shape.element == Element::f32 ? 1 : 2; }  // numbers in a word
  int64_t padded_dim() const { return (shape.head_dim + width() - 1) / width() * width(); }
  int64_t block_of(int64_t slot, int64_t head) const {
    return slot / shape.block_size * shape.kv_heads + head;
  }
  double set_scale(int64_t slot, int64_t head, bool is_value, const std::vector<double>& row);
};

}  // namespace octavo::check
