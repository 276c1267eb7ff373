// Attention over the paged cache: a softmax for each tile of keys, and tiles joined in order, so that
// a token gets the same bits however its prompt was cut and whoever else is in the step.
#include <type_traits>
#include <utility>

#include "attention_tile.h"

namespace octavo::OCTAVO_VARIANT {
namespace {

constexpr int64_t kMaxPassRows = 96;  // queries x heads that go over a tile while it is in the cache

// Some queries of a sequence for one KV head; a row is a query of one of the heads that share it.
template <class T, class Word, class Stored = Word>
class Pass {
 public:
  Pass(const Call& call, const AttentionShape& shape, const Plan& plan, const Item& item, int64_t kv_head,
       Scratch& scratch)
      : call_(call), shape_(shape), item_(item), kv_head_(kv_head),
        seq_len_(plan.seq_len(item.seq)), first_position_(seq_len_ - plan.query_start(item.seq + 1)),
        query_start_(plan.query_start(item.seq)),
        is_split_(item.first_partial >= 0 && can_split(shape, plan)),
        steps_((shape.head_dim + kKeysPerWord<Word> - 1) / kKeysPerWord<Word>),
        row_floats_(shape.padded_dim + kLanes),
        blocks_(call, shape, plan.blocks(item.seq), kv_head) {
    const int64_t rows = std::max(kMaxPassRows, shape.group);
    const int64_t words[] = {rows * steps_, 2 * rows, rows * row_floats_, kMaxRows * kTileKeys,
                             kMaxRows * kTileKeys, kMaxRows * row_floats_, 2 * row_floats_,
                             staged_words<Word>(shape), staged_words<Word>(shape)};
    int64_t total = 0;
    for (const int64_t count : words) total += round_up(count, 16);
    float* next = scratch.array<float>(static_cast<size_t>(total));
    float* parts[9];
    for (int i = 0; i < 9; ++i) parts[i] = std::exchange(next, next + round_up(words[i], 16));
    q_ = reinterpret_cast<Word*>(parts[0]);
    sums_ = parts[1];
    values_ = parts[2];
    scores_ = parts[3];
    weights_ = reinterpret_cast<Word*>(parts[4]);
    tile_values_ = parts[5];
    edges_ = reinterpret_cast<Stored*>(parts[6]);
    staged_keys_ = reinterpret_cast<Stored*>(parts[7]);
    staged_values_ = reinterpret_cast<Stored*>(parts[8]);
  }

  void run() {
    if (item_.first_partial >= 0 && !is_split_ && item_.first_tile > 0) return;  // the first item does all
    const int64_t queries = std::max<int64_t>(1, kMaxPassRows / shape_.group);
    for (int64_t query = 0; query < item_.num_queries; query += queries) {
      first_token_ = item_.first_token + query;
      num_rows_ = std::min(queries, item_.num_queries - query) * shape_.group;
      start();
      go_over_tiles();
      if (!is_split_) write();
    }
  }

 private:
  int64_t token(int64_t row) const { return first_token_ + row / shape_.group; }
  int64_t head(int64_t row) const { return kv_head_ * shape_.group + row % shape_.group; }
  int64_t position(int64_t row) const { return first_position_ + token(row); }
  Range visible(int64_t first_row, int64_t last_row) const {
    return shape_.visible(position(first_row), position(last_row), seq_len_);
  }
  Attended total(int64_t row) { return {sums_[2 * row], sums_[2 * row + 1], values_ + row * row_floats_}; }

  void start() {
    for (int64_t row = 0; row < num_rows_; ++row) {
      const T* q = call_.operand<const T>(0) + token(row) * shape_.q_token + head(row) * shape_.q_head;
      copy_query(q, q_ + row * steps_);
      sums_[2 * row] = -INFINITY;
      sums_[2 * row + 1] = 0;
      std::memset(values_ + row * row_floats_, 0, sizeof(float) * static_cast<size_t>(shape_.padded_dim));
    }
  }

  void copy_query(const T* q, uint32_t* out) const {
    out[steps_ - 1] = 0;
    std::memcpy(out, q, static_cast<size_t>(shape_.head_dim) * sizeof(T));
  }
  void copy_query(const T* q, float* out) const {
    for (int64_t i = 0; i < shape_.head_dim; i += kLanes) {
      const int rest = static_cast<int>(std::min<int64_t>(kLanes, shape_.head_dim - i));
      store_part(out + i, load_part(q + i, rest), rest);
    }
  }

  void go_over_tiles() {
    const Range seen = visible(0, num_rows_ - 1);
    Range tiles = {seen.begin / kTileKeys, chunks_of(seen.end, kTileKeys)};
    if (is_split_) tiles = {item_.first_tile, item_.first_tile + item_.num_tiles};
    for (int64_t index = tiles.begin; index < tiles.end; ++index) {
      first_key_ = index * kTileKeys;
      tile_.keys = in_tile(seen);
      const int64_t groups = chunks_of(num_rows_, kMaxRows), size = chunks_of(num_rows_, groups);
      // The values take the place of the keys where those are done with: the nearest cache is small.
      has_values_ = groups > 1;
      if (!is_empty(tile_.keys)) {
        prepare_keys(tile_, blocks_, first_key_, staged_keys_);
        if (has_values_) prepare_values(tile_, blocks_, first_key_, staged_values_, edges_);
      }
      for (int64_t row = 0; row < num_rows_; row += size) attend(row, std::min(size, num_rows_ - row));
    }
  }

  Range in_tile(Range keys) const {
    return intersect({keys.begin - first_key_, keys.end - first_key_}, {0, kTileKeys});
  }

  void attend(int64_t row, int64_t count) {
    switch (count) {
      case 1: return attend_rows<1>(row);
      case 2: return attend_rows<2>(row);
      case 3: return attend_rows<3>(row);
      case 4: return attend_rows<4>(row);
      case 5: return attend_rows<5>(row);
      default: return attend_rows<6>(row);
    }
  }

  template <int R>
  void attend_rows(int64_t row) {
    const Range keys = intersect(in_tile(visible(row, row + R - 1)), tile_.keys);
    Attended results[R];
    for (int r = 0; r < R; ++r) results[r] = {-INFINITY, 0, tile_values_ + r * row_floats_};
    if (!is_empty(keys)) {
      const Range panels = {keys.begin / kLanes, chunks_of(keys.end, kLanes)};
      score<R>(row, panels);
      for (int r = 0; r < R; ++r) softmax(r, panels, in_tile(visible(row + r, row + r)), results[r]);
      if (!has_values_) prepare_values(tile_, blocks_, first_key_, staged_keys_, edges_);
      weigh<R>({keys.begin / kKeysPerWord<Word>, chunks_of(keys.end, kKeysPerWord<Word>)});
    }
    for (int r = 0; r < R; ++r) keep(row + r, results[r]);
  }

  template <int R>
  void score(int64_t row, Range panels) {
    const Word* q = q_ + row * steps_;
    int64_t panel = panels.begin;
    for (; panel + kColumns <= panels.end; panel += kColumns) {
      const Stored* const* here = tile_.panels + panel;
      const Stored* const* next = panel + 2 * kColumns <= panels.end ? here + kColumns : here;
      score_panels<Word, Stored, R, kColumns>(q, steps_, here, next, tile_.panel_stride, scores_ + panel * kLanes,
                                      kTileKeys);
    }
    for (; panel < panels.end; ++panel)
      score_panels<Word, Stored, R, 1>(q, steps_, tile_.panels + panel, tile_.panels + panel, tile_.panel_stride,
                               scores_ + panel * kLanes, kTileKeys);
  }

  // Scores of a row to weights; those of keys that it does not see become 0.
  void softmax(int r, Range panels, Range keys, Attended& result) {
    float* scores = scores_ + r * kTileKeys;
    const bool is_coded = shape_.cache == Element::i8;
    f32v top = splat(-INFINITY);
    for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
      f32v x = load(scores + panel * kLanes) * shape_.scale;
      if (is_coded) x *= load(tile_.k_scales[panel]);
      if (shape_.cap > 0) x = soft_cap(x, shape_.cap);
      x = is_inside(panel, keys) ? x : select(panel, keys, x, splat(-INFINITY));
      store(scores + panel * kLanes, x);
      top = max(top, x);
    }
    const bool sees_none = is_empty(keys);
    const float maximum = sees_none ? 0.0f : largest(top);
    f32v total{};
    for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
      f32v x = exp_negative(load(scores + panel * kLanes) - maximum);
      total += x;
      if (is_coded) {
        x *= load(tile_.v_scales[panel]);
        if (!is_inside(panel, keys)) x = select(panel, keys, x, f32v{});
      }
      store(weights(r) + panel * kLanes, x);
    }
    if (sees_none) return;
    result.maximum = maximum;
    result.sum = sum(total);
  }

  using Weight = std::conditional_t<kKeysPerWord<Word> == 2, bf16, float>;
  Weight* weights(int r) { return reinterpret_cast<Weight*>(weights_ + r * kTileKeys); }

  static bool is_inside(int64_t panel, Range keys) {
    return keys.begin <= panel * kLanes && (panel + 1) * kLanes <= keys.end;
  }
  static f32v select(int64_t panel, Range keys, f32v inside, f32v outside) {
    const i32v key = lane_indices() + static_cast<int32_t>(panel * kLanes);
    const auto is_key = (key >= static_cast<int32_t>(keys.begin)) & (key < static_cast<int32_t>(keys.end));
    return is_key ? inside : outside;
  }

  template <int R>
  void weigh(Range rows) {
    int64_t column = 0;
    for (; column + kColumns * kLanes <= shape_.padded_dim; column += kColumns * kLanes)
      weigh_rows<Word, Stored, R, kColumns>(weights_, kTileKeys, tile_.values, rows.begin, rows.end, column,
                                    tile_values_, row_floats_);
    for (; column < shape_.padded_dim; column += kLanes)
      weigh_rows<Word, Stored, R, 1>(weights_, kTileKeys, tile_.values, rows.begin, rows.end, column, tile_values_,
                             row_floats_);
  }

  // Join the result of a tile with the row's, or leave it for attention_combine.
  void keep(int64_t row, const Attended& result) {
    if (is_split_) {
      const int64_t queries = item_.num_queries, query = token(row) - query_start_;
      const int64_t partial = item_.first_partial + first_key_ / kTileKeys * queries + query;
      float* record = partial_record(call_, shape_, partial, head(row));
      record[0] = result.maximum;
      record[1] = result.sum;
      const auto bytes = sizeof(float) * static_cast<size_t>(shape_.padded_dim);
      if (result.sum != 0) std::memcpy(record + 16, result.values, bytes);
      return;
    }
    Attended joined = total(row);
    join(joined, result, shape_.padded_dim);
    sums_[2 * row] = joined.maximum;
    sums_[2 * row + 1] = joined.sum;
  }

  void write() {
    for (int64_t row = 0; row < num_rows_; ++row)
      finish_head<T>(call_, shape_, token(row), head(row), total(row));
  }

  const Call& call_;
  const AttentionShape& shape_;
  const Item& item_;
  const int64_t kv_head_, seq_len_, first_position_, query_start_;  // first_position_ + token: its position
  const bool is_split_;
  const int64_t steps_, row_floats_;
  const HeadBlocks blocks_;
  Word *q_, *weights_;
  Stored *edges_, *staged_keys_, *staged_values_;
  float *sums_, *values_, *scores_, *tile_values_;
  int64_t first_token_ = 0, num_rows_ = 0, first_key_ = 0;
  bool has_values_ = false;
  Tile<Stored> tile_;
};

template <class T>
void attend_item(const Call& call, const AttentionShape& shape, const Plan& plan, int64_t piece,
                 Scratch& scratch) {
  const Item item = plan.item(piece / shape.kv_heads);
  const int64_t kv_head = piece % shape.kv_heads;
  if constexpr (std::is_same_v<T, bf16>) {
    // Codes are widened in registers where each is used once, and beforehand where more rows want them.
    if (shape.cache == Element::i8 && item.num_queries * shape.group <= kMaxRows)
      return Pass<T, uint32_t, uint16_t>(call, shape, plan, item, kv_head, scratch).run();
    if (shape.cache == Element::bf16 || shape.cache == Element::i8)
      return Pass<T, uint32_t>(call, shape, plan, item, kv_head, scratch).run();
  }
  Pass<T, float>(call, shape, plan, item, kv_head, scratch).run();
}

bool is_small(const AttentionShape& shape, const Plan& plan) {
  const auto keys = static_cast<double>(plan.tiles_read() * kTileKeys);
  const auto query_keys = static_cast<double>(plan.query_tiles() * kTileKeys);
  const auto dim = static_cast<double>(shape.head_dim);
  const double bytes = keys * static_cast<double>(shape.kv_heads) * dim * 4;
  const double operations = query_keys * static_cast<double>(shape.heads) * dim * 4;
  return bytes / 30e9 + operations / 200e9 < 15e-6;
}

int64_t num_chunks(const Call& call) {
  const AttentionShape shape(call);
  const Plan plan(call.operand<const int32_t>(4));
  const int64_t pieces = plan.num_items() * shape.kv_heads;
  return is_small(shape, plan) ? std::min<int64_t>(pieces, 1) : pieces;
}

template <class T>
void attend_chunk(const Call& call, int64_t chunk, Scratch& scratch) {
  const AttentionShape shape(call);
  const Plan plan(call.operand<const int32_t>(4));
  const bool is_whole = is_small(shape, plan);
  const Range pieces = {chunk, is_whole ? plan.num_items() * shape.kv_heads : chunk + 1};
  for (int64_t piece = pieces.begin; piece < pieces.end; ++piece)
    attend_item<T>(call, shape, plan, piece, scratch);
}

}  // namespace

const Kernel kAttention = {num_chunks, [](const Call& call, int64_t chunk, Scratch& scratch) {
                             OCTAVO_BY_ELEMENT(call, attend_chunk, call, chunk, scratch);
                           }};

}  // namespace octavo::OCTAVO_VARIANT
