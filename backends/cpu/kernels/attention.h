// What the kernels of attention share: their sizes by name, and how results of tiles are joined.
#pragma once

#include "attention_plan.h"
#include "attention_softmax.h"

namespace octavo::OCTAVO_VARIANT {

inline int64_t round_up(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }
inline Range intersect(Range a, Range b) { return {std::max(a.begin, b.begin), std::min(a.end, b.end)}; }
inline bool is_empty(Range range) { return range.begin >= range.end; }

// The sizes and scalars of an attention instruction.
struct AttentionShape {
  explicit AttentionShape(const Call& call)
      : heads(call.size(1)), kv_heads(call.size(2)), head_dim(call.size(3)), q_token(call.size(4)),
        q_head(call.size(5)), block_size(call.size(6)), window(call.size(7)), group(heads / kv_heads),
        padded_dim(round_up(head_dim, kLanes)), is_causal(call.size(8) != 0),
        cache(static_cast<Element>(call.size(9))), scale(call.scalar(0)), cap(call.scalar(1)) {}

  // The keys that some query at positions first..last sees.
  Range visible(int64_t first, int64_t last, int64_t seq_len) const {
    const int64_t begin = window > 0 ? std::max<int64_t>(0, first - window + 1) : 0;
    if (is_causal) return {begin, last + 1};
    return {begin, window > 0 ? std::min(seq_len, last + window) : seq_len};
  }
  // Of a partial result: the maximum, the sum, and from 16 on the weighted values.
  int64_t record_floats() const { return 16 + round_up(head_dim, 16); }

  int64_t heads, kv_heads, head_dim, q_token, q_head, block_size, window, group, padded_dim;
  bool is_causal;
  Element cache;
  float scale, cap;
};

// A softmax over some keys: weights are e^(score - maximum), `sum` of them, and `values` weighted.
// Without a key the sum is 0.
struct Attended {
  float maximum, sum;
  float* values;  // [head_dim rounded up to vectors]
};

// Join a tile's result with that of all tiles before it.
inline void join(Attended& total, const Attended& tile, int64_t padded_dim) {
  if (tile.sum == 0) return;
  const float maximum = total.maximum > tile.maximum ? total.maximum : tile.maximum;
  const f32v keep = exp_negative(splat(total.maximum - maximum));
  const f32v add = exp_negative(splat(tile.maximum - maximum));
  total.maximum = maximum;
  total.sum = total.sum * keep[0] + tile.sum * add[0];
  for (int64_t i = 0; i < padded_dim; i += kLanes)
    store(total.values + i, fma(load(tile.values + i), add, load(total.values + i) * keep));
}

// Write the mean. A sink is a score that takes part in the sum and has no value.
template <class T>
void finish(const Attended& total, const float* sink, int64_t head_dim, T* out) {
  float factor = total.sum == 0 ? 0.0f : 1.0f / total.sum;
  if (sink != nullptr && total.sum != 0) {
    const float maximum = total.maximum > *sink ? total.maximum : *sink;
    const float keep = exp_negative(splat(total.maximum - maximum))[0];
    factor = keep / (total.sum * keep + exp_negative(splat(*sink - maximum))[0]);
  }
  int64_t i = 0;
  for (; i + kLanes <= head_dim; i += kLanes) store(out + i, load(total.values + i) * factor);
  if (i < head_dim) store_part(out + i, load(total.values + i) * factor, static_cast<int>(head_dim - i));
}

// finish() for a head, whose sink stands in the operand `sinks` of the element type, if there is one.
template <class T>
void finish_head(const Call& call, const AttentionShape& shape, int64_t token, int64_t head,
                 const Attended& total) {
  const T* sinks = call.operand<const T>(6);
  const float sink = sinks == nullptr ? 0.0f : load_one(sinks + head);
  T* out = call.operand<T>(7) + (token * shape.heads + head) * shape.head_dim;
  finish(total, sinks == nullptr ? nullptr : &sink, shape.head_dim, out);
}

// Where a split sequence leaves the result of a tile; nullptr if the scratch is too small to split.
inline float* partial_record(const Call& call, const AttentionShape& shape, int64_t partial, int64_t head) {
  return call.operand<float>(5) + (partial * shape.heads + head) * shape.record_floats();
}
inline bool can_split(const AttentionShape& shape, const Plan& plan) {
  return plan.num_partials() * shape.heads * shape.record_floats() <= plan.scratch_floats();
}

}  // namespace octavo::OCTAVO_VARIANT
