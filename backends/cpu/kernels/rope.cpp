// Rotary position embedding (Su et al., 2021): the cosines and sines of a step, and the rotation.
#include "functions.h"
#include "kernels.h"

namespace octavo::OCTAVO_VARIANT {
namespace {

// RopeSpec.kind, as far as a step can tell them apart: the others are in the inverse frequencies.
enum Kind : int64_t { kFixed = 0, kDynamic = 1, kLongRope = 2 };

constexpr int64_t kTokensPerChunk = 32;

// NTK-aware scaling: the base grows with the context length beyond the trained one.
void dynamic_frequencies(const Call& call, int32_t context_len, float* frequencies) {
  const int64_t half = call.size(1);
  const double dim = 2.0 * static_cast<double>(half), trained = static_cast<double>(call.size(3));
  const double factor = call.scalar(2);
  const double stretch = factor * context_len / trained - (factor - 1.0);
  const double base = call.scalar(1) * std::pow(stretch, dim / (dim - 2.0));
  for (int64_t i = 0; i < half; ++i)
    frequencies[i] = static_cast<float>(std::pow(base, -2.0 * static_cast<double>(i) / dim));
}

// Radians per position of one token. `own` is room for half of them.
const float* frequencies_of(const Call& call, int32_t context_len, float* own) {
  const bool is_long = context_len > call.size(3);
  if (is_long && call.size(2) == kDynamic) {
    dynamic_frequencies(call, context_len, own);
    return own;
  }
  const float* long_frequencies = call.operand<const float>(3);
  if (is_long && call.size(2) == kLongRope && long_frequencies != nullptr) return long_frequencies;
  return call.operand<const float>(2);
}

double round_even(double x) { return (x + 0x1.8p52) - 0x1.8p52; }

// Angles are products in double, since a float32 angle of 100,000 radians is off by up to 0.004. What
// lies beyond whole quarter turns is small enough for float32 again.
void table_row(const float* frequencies, double position, f32v factor, int64_t half, float* cos, float* sin) {
  by_lanes(half, [=](int64_t i, auto count) {
    const f32v frequency = load(frequencies + i, count);
    double angles[kLanes];
    float rest[kLanes];
    int32_t quarters[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) angles[lane] = position * static_cast<double>(frequency[lane]);
    for (int lane = 0; lane < kLanes; ++lane) {
      const double turns = round_even(angles[lane] * 0.63661977236758134308);  // 2 / pi
      // pi / 2 in two parts, of which the first has few enough bits for exact products.
      const double coarse = angles[lane] - turns * 0x1.921fb544p+0;
      rest[lane] = static_cast<float>(coarse - turns * 0x1.0b4611a626331p-34);
      quarters[lane] = static_cast<int32_t>(turns);
    }
    i32v quarter;
    std::memcpy(&quarter, quarters, sizeof quarter);
    const CosSin both = cos_sin(load(rest), quarter & 3);
    store(cos + i, both.cos * factor, count);
    store(sin + i, both.sin * factor, count);
  });
}

void rope_table(const Call& call, int64_t chunk, Scratch& scratch) {
  const int64_t half = call.size(1);
  float* own = scratch.array<float>(static_cast<size_t>(half));
  const f32v factor = splat(call.scalar(0));
  const float* frequencies = nullptr;
  int32_t previous_len = 0;
  const Range tokens = range_of(chunk, kTokensPerChunk, call.size(0));
  for (int64_t token = tokens.begin; token < tokens.end; ++token) {
    const int32_t context_len = call.operand<const int32_t>(1)[token];
    if (frequencies == nullptr || context_len != previous_len)
      frequencies = frequencies_of(call, context_len, own);
    previous_len = context_len;
    table_row(frequencies, call.operand<const int32_t>(0)[token], factor, half,
              call.operand<float>(4) + token * half, call.operand<float>(5) + token * half);
  }
}

// Rotate the pairs (i, i + half); what is behind them passes.
template <class T>
void rotate_head(const T* x, const float* cos, const float* sin, int64_t half, int64_t head_dim, T* out) {
  by_lanes(half, [=](int64_t i, auto count) {
    const f32v first = load(x + i, count), second = load(x + half + i, count);
    const f32v c = load(cos + i, count), s = load(sin + i, count);
    store(out + i, first * c - second * s, count);
    store(out + half + i, second * c + first * s, count);
  });
  const int64_t rest = head_dim - 2 * half;
  if (rest > 0 && out != x) std::memcpy(out + 2 * half, x + 2 * half, static_cast<size_t>(rest) * sizeof(T));
}

int64_t tokens_per_chunk(const Call& call) { return rows_per_chunk(call.size(1) * call.size(2)); }

void rope(const Call& call, int64_t chunk, Scratch&) {
  by_element(call, [&](auto zero) {
    using T = decltype(zero);
    const int64_t heads = call.size(1), head_dim = call.size(2), half = call.size(5);
    const Range tokens = range_of(chunk, tokens_per_chunk(call), call.size(0));
    for (int64_t token = tokens.begin; token < tokens.end; ++token) {
      const float* cos = call.operand<const float>(1) + token * half;
      const float* sin = call.operand<const float>(2) + token * half;
      for (int64_t head = 0; head < heads; ++head)
        rotate_head(call.operand<const T>(0) + token * call.size(3) + head * call.size(4), cos, sin, half,
                    head_dim, call.operand<T>(3) + (token * heads + head) * head_dim);
    }
  });
}

}  // namespace

const Kernel kRopeTable = {[](const Call& call) { return chunks_of(call.size(0), kTokensPerChunk); },
                           rope_table};
const Kernel kRope = {[](const Call& call) { return chunks_of(call.size(0), tokens_per_chunk(call)); },
                      rope};

}  // namespace octavo::OCTAVO_VARIANT
