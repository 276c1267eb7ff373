#include "cache.h"

#include <algorithm>
#include <cmath>

namespace octavo::check {
namespace {

// Kernels load whole vectors, and so may reach behind the last row.
constexpr int64_t kSlack = 256;

}  // namespace

Cache::Cache(const CacheShape& given)
    : shape(given),
      keys(given.element, given.num_blocks * shape.kv_heads * padded_dim() * shape.block_size + kSlack),
      values(given.element, given.num_blocks * shape.kv_heads * shape.head_dim * shape.block_size + kSlack),
      scales(Element::f32, shape.num_blocks * shape.kv_heads * 2 * shape.block_size + kSlack) {}

int64_t Cache::key_index(int64_t slot, int64_t head, int64_t i) const {
  const int64_t word = (block_of(slot, head) * padded_dim() / width() + i / width()) * shape.block_size;
  return (word + slot % shape.block_size) * width() + i % width();
}

int64_t Cache::value_index(int64_t slot, int64_t head, int64_t i) const {
  const int64_t offset = slot % shape.block_size;
  const int64_t row = block_of(slot, head) * shape.block_size / width() + offset / width();
  return (row * shape.head_dim + i) * width() + offset % width();
}

int64_t Cache::scale_index(int64_t slot, int64_t head, bool is_value) const {
  return (block_of(slot, head) * 2 + is_value) * shape.block_size + slot % shape.block_size;
}

double Cache::scale(int64_t slot, int64_t head, bool is_value) const {
  return shape.element == Element::i8 ? scales.get(scale_index(slot, head, is_value)) : 1.0;
}

double Cache::key(int64_t slot, int64_t head, int64_t i) const {
  return keys.get(key_index(slot, head, i)) * scale(slot, head, false);
}

double Cache::value(int64_t slot, int64_t head, int64_t i) const {
  return values.get(value_index(slot, head, i)) * scale(slot, head, true);
}

double Cache::set_scale(int64_t slot, int64_t head, bool is_value, const std::vector<double>& row) {
  if (shape.element != Element::i8) return 1.0;
  double largest = 0;
  for (const double x : row) largest = std::max(largest, std::fabs(x));
  scales.set(scale_index(slot, head, is_value), largest / 127);
  return largest / 127;
}

void Cache::set(int64_t slot, int64_t head, const std::vector<double>& key,
                const std::vector<double>& value) {
  const double key_scale = set_scale(slot, head, false, key);
  const double value_scale = set_scale(slot, head, true, value);
  const auto code = [&](double x, double scale) {
    return shape.element == Element::i8 ? std::nearbyint(x / scale) : x;
  };
  for (int64_t i = 0; i < shape.head_dim; ++i) {
    keys.set(key_index(slot, head, i), code(key[static_cast<size_t>(i)], key_scale));
    values.set(value_index(slot, head, i), code(value[static_cast<size_t>(i)], value_scale));
  }
}

}  // namespace octavo::check
