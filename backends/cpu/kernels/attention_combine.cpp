// Joins the partial results of sequences whose tiles several threads took, in the order of tiles.
#include "attention.h"

namespace octavo::OCTAVO_VARIANT {
namespace {

constexpr int64_t kSmallFloats = 1 << 16;  // what one thread reads in less time than another wakes up

int64_t num_chunks(const Call& call) {
  const AttentionShape shape(call);
  const Plan plan(call.operand<const int32_t>(4));
  const int64_t heads = plan.num_splits() * shape.heads;
  if (heads == 0 || !can_split(shape, plan)) return 0;
  return plan.num_partials() * shape.heads * shape.record_floats() < kSmallFloats ? 1 : heads;
}

template <class T>
void join_head(const Call& call, const AttentionShape& shape, const Plan& plan, const Split& split,
               int64_t head, float* values) {
  const int64_t seq_len = plan.seq_len(split.seq);
  for (int64_t query = 0; query < split.num_queries; ++query) {
    const int64_t position = seq_len - split.num_queries + query;
    const Range seen = shape.visible(position, position, seq_len);
    Attended total{-INFINITY, 0, values};
    std::fill_n(values, shape.padded_dim, 0.0f);
    for (int64_t tile = seen.begin / kTileKeys; tile * kTileKeys < seen.end; ++tile) {
      const int64_t partial = split.first_partial + tile * split.num_queries + query;
      float* record = partial_record(call, shape, partial, head);
      join(total, {record[0], record[1], record + 16}, shape.padded_dim);
    }
    finish_head<T>(call, shape, split.first_token + query, head, total);
  }
}

template <class T>
void join_chunk(const Call& call, int64_t chunk, Scratch& scratch) {
  const AttentionShape shape(call);
  const Plan plan(call.operand<const int32_t>(4));
  const bool is_whole = num_chunks(call) == 1;
  float* values = scratch.array<float>(static_cast<size_t>(shape.padded_dim));
  for (int64_t i = chunk; i < (is_whole ? plan.num_splits() * shape.heads : chunk + 1); ++i)
    join_head<T>(call, shape, plan, plan.split(i / shape.heads), i % shape.heads, values);
}

}  // namespace

const Kernel kAttentionCombine = {num_chunks, [](const Call& call, int64_t chunk, Scratch& scratch) {
                                    OCTAVO_BY_ELEMENT(call, join_chunk, call, chunk, scratch);
                                  }};

}  // namespace octavo::OCTAVO_VARIANT
