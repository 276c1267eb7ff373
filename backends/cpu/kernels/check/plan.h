// The plan of a step over a paged cache, as octavo_cpu/native/plan.py writes it.
#pragma once

#include "array.h"

namespace octavo::check {

// Sequences of a step: of `length` tokens, the last `queries` are this step's.
struct Sequence {
  int64_t length, queries;
};

class StepPlan {
 public:
  // Blocks are handed out in random order, the first to nobody. A split plan shares the tiles of
  // sequences with few queries, each tile another item's.
  StepPlan(const std::vector<Sequence>& sequences, int64_t block_size, bool is_split);
  int64_t slot(size_t sequence, int64_t position) const;
  int64_t slot_of(int64_t token) const { return slots_[static_cast<size_t>(token)]; }
  int64_t num_blocks() const { return num_blocks_; }
  int64_t num_tokens() const { return num_tokens_; }
  int64_t num_partials() const { return num_partials_; }
  void* data() { return buffer_.data(); }

 private:
  void share(const std::vector<Sequence>& sequences, bool is_split);
  void write(const std::vector<Sequence>& sequences);
  int64_t block_size_, blocks_per_sequence_ = 0, num_blocks_ = 1, num_tokens_ = 0, num_partials_ = 0;
  int64_t num_tiles_ = 0, num_products_ = 0;
  std::vector<int32_t> slots_, table_, items_, splits_, buffer_;
};

}  // namespace octavo::check
