#include "plan.h"

#include <algorithm>

namespace octavo::check {
namespace {

constexpr int64_t kTileKeys = 256, kHeader = 20, kQueriesPerItem = 64, kMaxSplitQueries = 8;

int64_t divide_up(int64_t count, int64_t size) { return (count + size - 1) / size; }

void append(std::vector<int32_t>& numbers, std::initializer_list<int64_t> more) {
  for (const int64_t number : more) numbers.push_back(static_cast<int32_t>(number));
}

}  // namespace

StepPlan::StepPlan(const std::vector<Sequence>& sequences, int64_t block_size, bool is_split)
    : block_size_(block_size) {
  for (const Sequence& sequence : sequences)
    blocks_per_sequence_ = std::max(blocks_per_sequence_, divide_up(sequence.length, block_size));
  std::vector<int32_t> blocks(sequences.size() * static_cast<size_t>(blocks_per_sequence_));
  for (int32_t& block : blocks) block = static_cast<int32_t>(num_blocks_++);
  std::shuffle(blocks.begin(), blocks.end(), generator());
  table_ = blocks;
  share(sequences, is_split);
  write(sequences);
}

int64_t StepPlan::slot(size_t sequence, int64_t position) const {
  const auto index = static_cast<int64_t>(sequence) * blocks_per_sequence_ + position / block_size_;
  return table_[static_cast<size_t>(index)] * block_size_ + position % block_size_;
}

void StepPlan::share(const std::vector<Sequence>& sequences, bool is_split) {
  for (size_t i = 0; i < sequences.size(); ++i) {
    const auto [length, queries] = sequences[i];
    const int64_t tiles = divide_up(length, kTileKeys), seq = static_cast<int64_t>(i);
    if (is_split && queries <= kMaxSplitQueries) {
      append(splits_, {seq, num_tokens_, queries, tiles, num_partials_});
      for (int64_t tile = 0; tile < tiles; ++tile)
        append(items_, {seq, num_tokens_, queries, tile, 1, num_partials_});
      num_partials_ += tiles * queries;
    } else {
      for (int64_t first = 0; first < queries; first += kQueriesPerItem)
        append(items_, {seq, num_tokens_ + first, std::min(kQueriesPerItem, queries - first), 0, tiles, -1});
    }
    num_tokens_ += queries;
    num_tiles_ += tiles;
    num_products_ += tiles * queries;
  }
}

void StepPlan::write(const std::vector<Sequence>& sequences) {
  std::vector<int32_t> starts = {0}, lengths;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const auto [length, queries] = sequences[i];
    for (int64_t position = length - queries; position < length; ++position)
      append(slots_, {slot(i, position)});
    append(starts, {starts.back() + queries});
    append(lengths, {length});
  }
  const auto count = [](const std::vector<int32_t>& numbers) { return static_cast<int64_t>(numbers.size()); };
  append(buffer_, {count(lengths), num_tokens_, block_size_, blocks_per_sequence_});
  int64_t start = kHeader;
  for (const auto* part : {&slots_, &starts, &lengths, &table_, &items_, &splits_}) {
    append(buffer_, {start});
    start += count(*part);
  }
  constexpr int64_t kScratchFloats = 1 << 22;  // what the caller has, or more
  append(buffer_, {count(items_) / 6, count(splits_) / 5, num_partials_, kScratchFloats, kTileKeys,
                   num_tiles_, num_products_, 0, 0, 0});
  for (const auto* part : {&slots_, &starts, &lengths, &table_, &items_, &splits_})
    buffer_.insert(buffer_.end(), part->begin(), part->end());
}

}  // namespace octavo::check
