// Stores the keys and values of a step's tokens in the paged cache (native/caches.py has the layout).
#include <type_traits>

#include "attention.h"

namespace octavo::OCTAVO_VARIANT {
namespace {

constexpr int64_t kTokensPerChunk = 16;

struct WriteShape {
  explicit WriteShape(const Call& call)
      : tokens(call.size(0)), kv_heads(call.size(1)), head_dim(call.size(2)), k_token(call.size(3)),
        k_head(call.size(4)), v_token(call.size(5)), v_head(call.size(6)), block_size(call.size(7)),
        cache(static_cast<Element>(call.size(8))), k_dim(round_up(head_dim, cache == Element::f32 ? 1 : 2)) {}
  int64_t tokens, kv_heads, head_dim, k_token, k_head, v_token, v_head, block_size;
  Element cache;
  int64_t k_dim;
};

// The row of one head in the type of the cache.
template <class Stored, class T>
void convert(const T* row, int64_t dim, Stored* out) {
  if constexpr (std::is_same_v<Stored, T>) {
    std::memcpy(out, row, sizeof(T) * static_cast<size_t>(dim));
    return;
  }
  int64_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) store(out + i, load(row + i));
  if (i < dim) store_part(out + i, load_part(row + i, static_cast<int>(dim - i)), static_cast<int>(dim - i));
}

// As codes, -127 to 127; returns what a code of 1 is worth. A row with a NaN is worth NaN.
template <class T>
float encode(const T* row, int64_t dim, float* floats, int8_t* out) {
  convert(row, dim, floats);
  float top = 0;
  bool is_number = true;
  for (int64_t i = 0; i < dim; ++i) {
    top = std::max(top, std::fabs(floats[i]));
    is_number &= floats[i] == floats[i];
  }
  top = std::min(top, 3.4028235e38f);
  const float scale = top / 127.0f, codes = scale > 0 ? 127.0f / top : 0.0f;
  for (int64_t i = 0; i < dim; ++i) {
    const float code = std::min(127.0f, std::max(-127.0f, floats[i] * codes));  // NaN becomes -127
    out[i] = static_cast<int8_t>(std::nearbyint(code));
  }
  return is_number ? scale : NAN;
}

// One key: a word of one or two features, block_size words apart.
template <class Stored>
void scatter_key(const Stored* row, int64_t dim, int64_t block_size, int64_t offset, Stored* block) {
  constexpr int64_t kPair = sizeof(Stored) == 4 ? 1 : 2;
  for (int64_t i = 0; i < dim; i += kPair)
    std::memcpy(block + i * block_size + offset * kPair, row + i, sizeof(Stored) * kPair);
}

// One value: features side by side with those of the neighbouring key.
template <class Stored>
void scatter_value(const Stored* row, int64_t dim, int64_t offset, Stored* block) {
  constexpr int64_t kPair = sizeof(Stored) == 4 ? 1 : 2;
  Stored* out = block + offset / kPair * kPair * dim + offset % kPair;
  for (int64_t i = 0; i < dim; ++i) out[i * kPair] = row[i];
}

// Ask for the lines that a token's keys and values go to: they are far apart, and a store at a time
// would wait for each.
template <class Stored>
void ask_for(const Call& call, const WriteShape& shape, int64_t slot) {
  constexpr int64_t kPair = sizeof(Stored) == 4 ? 1 : 2;
  const int64_t block = slot / shape.block_size, offset = slot % shape.block_size;
  const int64_t heads = block * shape.kv_heads, rows = shape.kv_heads * shape.k_dim / kPair;
  const Stored* k = call.operand<Stored>(2) + heads * shape.k_dim * shape.block_size + offset * kPair;
  for (int64_t row = 0; row < rows; ++row) __builtin_prefetch(k + row * shape.block_size * kPair, 1);
  const int64_t v_head = shape.head_dim * shape.block_size, v_bytes = shape.head_dim * kPair * sizeof(Stored);
  for (int64_t head = 0; head < shape.kv_heads; ++head) {
    const auto* v = reinterpret_cast<const char*>(
        call.operand<Stored>(3) + (heads + head) * v_head + offset / kPair * kPair * shape.head_dim);
    for (int64_t i = 0; i < v_bytes; i += 64) __builtin_prefetch(v + i, 1);
  }
}

template <class T, class Stored>
void write_head(const Call& call, const WriteShape& shape, int64_t token, int64_t slot, int64_t head,
                float* floats, Stored* row) {
  const int64_t block = slot / shape.block_size, offset = slot % shape.block_size;
  const T* k = call.operand<const T>(0) + token * shape.k_token + head * shape.k_head;
  const T* v = call.operand<const T>(1) + token * shape.v_token + head * shape.v_head;
  const int64_t head_block = block * shape.kv_heads + head;
  Stored* k_block = call.operand<Stored>(2) + head_block * shape.k_dim * shape.block_size;
  Stored* v_block = call.operand<Stored>(3) + head_block * shape.head_dim * shape.block_size;
  row[shape.k_dim - 1] = Stored{};
  if constexpr (std::is_same_v<Stored, int8_t>) {
    float* scales = call.operand<float>(4) + head_block * 2 * shape.block_size + offset;
    scales[0] = encode(k, shape.head_dim, floats, row);
    scatter_key(row, shape.k_dim, shape.block_size, offset, k_block);
    scales[shape.block_size] = encode(v, shape.head_dim, floats, row);
  } else {
    convert(k, shape.head_dim, row);
    scatter_key(row, shape.k_dim, shape.block_size, offset, k_block);
    convert(v, shape.head_dim, row);
  }
  scatter_value(row, shape.head_dim, offset, v_block);
}

// The tokens from `begin` on whose slots follow each other in one block, `end` at the most.
int64_t end_of_run(const Plan& plan, int64_t block_size, int64_t begin, int64_t end) {
  int64_t token = begin + 1, slot = plan.slot(begin) + 1;
  for (; token < end && plan.slot(token) == slot && slot % block_size != 0; ++slot) ++token;
  return token;
}

template <class T, class Stored>
void write_tokens(const Call& call, const WriteShape& shape, Range tokens, Scratch& scratch) {
  const Plan plan(call.operand<const int32_t>(5));
  float* floats = scratch.array<float>(static_cast<size_t>(2 * shape.head_dim + 2));
  auto* row = reinterpret_cast<Stored*>(floats + shape.head_dim);
  if (tokens.begin < tokens.end) ask_for<Stored>(call, shape, plan.slot(tokens.begin));
  for (int64_t begin = tokens.begin; begin < tokens.end;) {
    const int64_t end = end_of_run(plan, shape.block_size, begin, tokens.end);
    if (end < tokens.end) ask_for<Stored>(call, shape, plan.slot(end));
    // Head by head: the keys of a run go to the same lines, which stay near until all are written.
    for (int64_t head = 0; head < shape.kv_heads; ++head)
      for (int64_t token = begin; token < end; ++token)
        // Padding goes to slot 0, which nobody reads.
        if (const int64_t slot = plan.slot(token)) write_head<T>(call, shape, token, slot, head, floats, row);
    begin = end;
  }
}

template <class T>
void write_chunk(const Call& call, int64_t chunk, Scratch& scratch) {
  const WriteShape shape(call);
  const Range tokens = range_of(chunk, kTokensPerChunk, shape.tokens);
  switch (shape.cache) {
    case Element::f32: return write_tokens<T, float>(call, shape, tokens, scratch);
    case Element::bf16: return write_tokens<T, bf16>(call, shape, tokens, scratch);
    case Element::f16: return write_tokens<T, f16>(call, shape, tokens, scratch);
    case Element::i8: return write_tokens<T, int8_t>(call, shape, tokens, scratch);
  }
}

}  // namespace

const Kernel kWriteKv = {[](const Call& call) { return chunks_of(call.size(0), kTokensPerChunk); },
                         [](const Call& call, int64_t chunk, Scratch& scratch) {
                           OCTAVO_BY_ELEMENT(call, write_chunk, call, chunk, scratch);
                         }};

}  // namespace octavo::OCTAVO_VARIANT
