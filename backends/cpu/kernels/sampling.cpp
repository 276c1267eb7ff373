// One token per row of logits, as octavo.ops.sampling defines it to the bit, without sorting a row.
//
// A row is looked at in blocks. The first pass finds each block's largest logit; from these follows
// which blocks can hold a token that may be drawn, and only these get weights.
#include <cmath>

#include "kernels.h"
#include "weights.h"

namespace octavo::OCTAVO_VARIANT {
namespace {

constexpr int64_t kBlock = 128;  // tokens; a multiple of kLanes

struct Largest {
  float logit;
  int64_t block;   // the first that holds it
  bool is_usable;  // no NaN, and a finite largest logit
};

f32v lowest() { return splat(-INFINITY); }

// Lanes behind the row are -inf.
template <class T>
f32v load_logits(const T* logits, int64_t i, int64_t vocab) {
  if (i + kLanes <= vocab) return load(logits + i);
  if (i >= vocab) return lowest();
  const int count = static_cast<int>(vocab - i);
  return keep_first(load_part(logits + i, count), lowest(), count);
}

template <class T>
f32v block_maxima(const T* logits, int64_t begin, int64_t vocab, i32v& has_nan) {
  f32v largest[2] = {lowest(), lowest()};
  for (int64_t i = begin; i < begin + kBlock; i += 2 * kLanes)
    for (int part = 0; part < 2; ++part) {
      const f32v lanes = load_logits(logits, i + part * kLanes, vocab);
      has_nan |= lanes != lanes;
      largest[part] = max(lanes, largest[part]);
    }
  return max(largest[0], largest[1]);
}

// `maxima` of the blocks are kept if given.
template <class T>
Largest find_largest(const T* logits, int64_t vocab, float* maxima) {
  Largest best = {-INFINITY, 0, false};
  i32v has_nan{};
  for (int64_t block = 0; block * kBlock < vocab; ++block) {
    const f32v lanes = block_maxima(logits, block * kBlock, vocab, has_nan);
    if (maxima != nullptr) maxima[block] = largest(lanes);
    if (!any(lanes > best.logit)) continue;
    best.logit = largest(lanes);
    best.block = block;
  }
  best.is_usable = !any(has_nan) && std::isfinite(best.logit);
  return best;
}

// The first token whose logit is the largest.
template <class T>
int32_t first_largest(const T* logits, int64_t vocab, const Largest& best) {
  for (int64_t i = best.block * kBlock;; i += kLanes) {
    const f32v lanes = load_logits(logits, i, vocab);
    if (!any(lanes == best.logit)) continue;
    int lane = 0;
    while (lanes[lane] != best.logit) ++lane;
    return static_cast<int32_t>(i + lane);
  }
}

// What a row asks for; fractions in parts of 2^24.
struct Settings {
  float per_logit;
  int64_t top_k, min_p, top_p, uniform;
};

// The blocks of a row that matter, and the weights of their tokens.
struct Candidates {
  int32_t* blocks;
  int32_t* weights;  // [num_blocks][kBlock]
  int64_t num_blocks;
};

// Integers in the order of the floats whose bits they are made of, and back.
i32v order_of(f32v x) {
  const i32v bits = reinterpret_cast<i32v>(x);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}
float float_of(int32_t order) {
  const int32_t bits = order ^ ((order >> 31) & 0x7fffffff);
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

int64_t count_from(const int32_t* orders, int64_t count, int32_t least) {
  i32v reached{};
  for (int64_t i = 0; i < count; i += kLanes) {
    i32v lanes;
    std::memcpy(&lanes, orders + i, sizeof lanes);
    reached -= lanes >= least;
  }
  int64_t sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += reached[lane];
  return sum;
}

// The k-th largest of numbers that this overwrites, found bit by bit: reading them 32 times takes
// less than a partition, which guesses wrong at every other number. There is room for kLanes more.
float nth_largest(float* values, int64_t count, int64_t k) {
  for (; count % kLanes != 0; ++count) values[count] = -INFINITY;
  int32_t* orders = reinterpret_cast<int32_t*>(values);
  for (int64_t i = 0; i < count; i += kLanes) {
    const i32v order = order_of(load(values + i));
    std::memcpy(orders + i, &order, sizeof order);
  }
  int32_t nth = count_from(orders, count, 0) >= k ? 0 : INT32_MIN;
  for (int32_t bit = 1 << 30; bit > 0; bit >>= 1)
    if (count_from(orders, count, nth + bit) >= k) nth += bit;
  return float_of(nth);
}

// All logits of the candidates' blocks that are at least `bound`; -> how many.
template <class T>
int64_t gather(const T* logits, int64_t vocab, const Candidates& candidates, float bound, float* values) {
  int64_t count = 0;
  for (int64_t place = 0; place < candidates.num_blocks; ++place) {
    const int64_t begin = candidates.blocks[place] * kBlock, end = std::min(begin + kBlock, vocab);
    for (int64_t i = begin; i < end; i += kLanes) {
      const f32v lanes = load_logits(logits, i, vocab);
      if (!any(lanes >= bound)) continue;
      for (int lane = 0; lane < kLanes && i + lane < vocab; ++lane) {
        values[count] = lanes[lane];
        count += lanes[lane] >= bound;
      }
    }
  }
  return count;
}

// Blocks whose largest logit is at least `bound`.
int64_t select_blocks(const float* maxima, int64_t num_blocks, float bound, int32_t* blocks) {
  int64_t count = 0;
  for (int64_t block = 0; block < num_blocks; ++block) {
    blocks[count] = static_cast<int32_t>(block);
    count += maxima[block] >= bound;
  }
  return count;
}

// Weights of all candidates; 0 for those below the k-th largest logit or lighter than `lightest`.
template <class T>
void weigh(const T* logits, int64_t vocab, const Candidates& candidates, float largest_logit, float per_logit,
           float kth_logit, int32_t lightest) {
  const f32v largest_lanes = splat(largest_logit), per_logit_lanes = splat(per_logit);
  for (int64_t place = 0; place < candidates.num_blocks; ++place)
    for (int64_t i = 0; i < kBlock; i += kLanes) {
      const f32v lanes = load_logits(logits, candidates.blocks[place] * kBlock + i, vocab);
      i32v weights = weights_of(lanes, largest_lanes, per_logit_lanes);
      weights &= (lanes >= kth_logit) & (weights >= lightest);
      std::memcpy(candidates.weights + place * kBlock + i, &weights, sizeof weights);
    }
}

// The smallest weight of which, with all heavier ones, there is `needed`: from the heaviest bit down.
int32_t lightest_needed(const int32_t* weights, int64_t count, int64_t needed) {
  int32_t lightest = 0;
  for (int32_t bit = kUnit; bit > 0; bit >>= 1)
    if (sum_of_weights(weights, count, lightest | bit) >= needed) lightest |= bit;
  return std::min(lightest, kUnit);
}

// The same for all candidates. Mostly a few heavy ones are enough: look at these alone then.
int32_t lightest_kept(const Candidates& candidates, int64_t top_p, int32_t* heavy) {
  const int64_t count = candidates.num_blocks * kBlock;
  const int64_t needed = fraction_of(sum_of_weights(candidates.weights, count, 1), top_p);
  int32_t floor = kUnit >> 4;
  while (floor > 1 && sum_of_weights(candidates.weights, count, floor) < needed) floor >>= 4;
  int64_t num_heavy = 0;
  for (int64_t i = 0; i < count; i += kLanes) {
    i32v lanes;
    std::memcpy(&lanes, candidates.weights + i, sizeof lanes);
    if (!any(lanes >= floor)) continue;
    for (int lane = 0; lane < kLanes; ++lane) {
      heavy[num_heavy] = lanes[lane];
      num_heavy += lanes[lane] >= floor;
    }
  }
  while (num_heavy % kLanes != 0) heavy[num_heavy++] = 0;
  return lightest_needed(heavy, num_heavy, needed);
}

// The first token, in order of id, at which the sum of weights of at least `lightest` exceeds its
// part; -1 if there is none.
int64_t pick(const Candidates& candidates, int32_t lightest, int64_t uniform) {
  const int64_t total = sum_of_weights(candidates.weights, candidates.num_blocks * kBlock, lightest);
  const int64_t target = fraction_of(total, uniform);
  int64_t sum = 0;
  for (int64_t place = 0; place < candidates.num_blocks; ++place) {
    const int32_t* weights = candidates.weights + place * kBlock;
    const int64_t block_sum = sum_of_weights(weights, kBlock, lightest);
    if (sum + block_sum <= target) {
      sum += block_sum;
      continue;
    }
    int64_t i = 0;
    for (;; ++i) {
      sum += weights[i] >= lightest ? weights[i] : 0;
      if (sum > target) return candidates.blocks[place] * kBlock + i;
    }
  }
  return -1;
}

// Room for one row, of which `values` and `heavy` are never needed at once.
struct Room {
  Room(Scratch& scratch, int64_t vocab) {
    const int64_t num_blocks = chunks_of(vocab, kBlock);
    const int64_t num_floats = 2 * num_blocks * (kBlock + 1) + kLanes;
    float* memory = scratch.array<float>(static_cast<size_t>(num_floats));
    weights = reinterpret_cast<int32_t*>(memory);
    values = memory + num_blocks * kBlock;
    maxima = values + num_blocks * kBlock + kLanes;
    blocks = reinterpret_cast<int32_t*>(maxima + num_blocks);
  }
  int32_t* heavy() { return reinterpret_cast<int32_t*>(values); }
  int32_t *weights, *blocks;
  float *values, *maxima;
};

template <class T>
int64_t draw_token(const T* logits, int64_t vocab, const Largest& best, const Settings& settings,
                   Room& room) {
  const int64_t num_blocks = chunks_of(vocab, kBlock);
  // Below `bound` there is no weight, give or take what roundings can do.
  float bound = best.logit - 1.01f * kLimitSteps / settings.per_logit;
  const bool is_limited = settings.top_k > 0 && settings.top_k < vocab;
  if (is_limited && settings.top_k <= num_blocks) {
    // As many blocks have a maximum of at least this, and so have as many logits.
    std::copy(room.maxima, room.maxima + num_blocks, room.values);
    bound = std::max(bound, nth_largest(room.values, num_blocks, settings.top_k));
  }
  const Candidates candidates = {room.blocks, room.weights,
                                 select_blocks(room.maxima, num_blocks, bound, room.blocks)};
  float kth_logit = -INFINITY;
  if (is_limited) {
    const int64_t count = gather(logits, vocab, candidates, bound, room.values);
    if (count > settings.top_k) kth_logit = nth_largest(room.values, count, settings.top_k);
    else kth_logit = bound;
  }
  weigh(logits, vocab, candidates, best.logit, settings.per_logit, kth_logit,
        static_cast<int32_t>(std::max<int64_t>(settings.min_p, 0)));
  int32_t lightest = 1;
  if (settings.top_p < kUnit) lightest = std::max(1, lightest_kept(candidates, settings.top_p, room.heavy()));
  return pick(candidates, lightest, settings.uniform);
}

template <class T>
void argmax_row(const Call& call, int64_t row) {
  const int64_t vocab = call.size(1);
  const T* logits = call.operand<const T>(0) + row * call.size(2);
  const Largest best = find_largest(logits, vocab, nullptr);
  call.operand<int32_t>(1)[row] = best.is_usable ? first_largest(logits, vocab, best) : 0;
  call.operand<uint8_t>(2)[row] = best.is_usable;
}

template <class T>
void draw_row(const Call& call, int64_t row, Scratch& scratch) {
  const int64_t vocab = call.size(1);
  const T* logits = call.operand<const T>(0) + row * call.size(2);
  Room room(scratch, vocab);
  const Largest best = find_largest(logits, vocab, room.maxima);
  const float temperature = call.operand<const float>(1)[row];
  int64_t token = -1;
  if (best.is_usable && temperature > 0) {
    const Settings settings = {steps_per_logit(temperature), call.operand<const int32_t>(2)[row],
                               to_units(call.operand<const float>(4)[row]),
                               to_units(call.operand<const float>(3)[row]),
                               to_units(call.operand<const float>(5)[row])};
    token = draw_token(logits, vocab, best, settings, room);
  }
  if (token < 0) token = best.is_usable ? first_largest(logits, vocab, best) : 0;
  call.operand<int32_t>(6)[row] = static_cast<int32_t>(token);
  call.operand<uint8_t>(7)[row] = best.is_usable;
}

// To look at a logit once costs about an eighth of what changing it does.
int64_t argmax_rows_per_chunk(const Call& call) { return rows_per_chunk(call.size(1) / 8); }

}  // namespace

const Kernel kArgmax = {
    [](const Call& call) { return chunks_of(call.size(0), argmax_rows_per_chunk(call)); },
    [](const Call& call, int64_t chunk, Scratch&) {
      const Range rows = range_of(chunk, argmax_rows_per_chunk(call), call.size(0));
      by_element(call, [&](auto zero) {
        for (int64_t row = rows.begin; row < rows.end; ++row) argmax_row<decltype(zero)>(call, row);
      });
    }};

const Kernel kDraw = {[](const Call& call) { return call.size(0); },
                      [](const Call& call, int64_t row, Scratch& scratch) {
                        by_element(call, [&](auto zero) { draw_row<decltype(zero)>(call, row, scratch); });
                      }};

}  // namespace octavo::OCTAVO_VARIANT
