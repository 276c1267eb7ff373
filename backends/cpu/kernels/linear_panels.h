// Panels of a weight: packed once, on loading. For each step over in_features, the words of kPanel columns.
#pragma once

#include "linear_products.h"
#include "kernel.h"
#include "memory.h"

namespace octavo::OCTAVO_VARIANT {

// Transpose `columns` rows of kWords words.
template <int64_t kWords, class Word>
inline void transpose(const char* rows, int64_t row_bytes, int64_t columns, Word* panel) {
  constexpr int64_t kBytes = kWords * static_cast<int64_t>(sizeof(Word));
  for (int64_t column = 0; column < columns; ++column) {
    Word words[kWords];
    std::memcpy(words, rows + column * row_bytes, sizeof words);
    // So many rows at a time are more than the processor follows by itself.
    for (int64_t i = 0; i < kBytes; i += 64) __builtin_prefetch(rows + column * row_bytes + kBytes + i);
    for (int64_t i = 0; i < kWords; ++i) panel[i * kPanel + column] = words[i];
  }
}

// Transpose `columns` rows of `steps` words, in blocks that the first cache holds on both sides.
template <class Word>
inline void pack_panel(const char* rows, int64_t row_bytes, int64_t columns, int64_t steps, Word* panel) {
  constexpr int64_t kBlock = 128 / sizeof(Word);  // two cache lines of a row
  int64_t step = 0;
  for (; step + kBlock <= steps; step += kBlock, rows += 128)
    transpose<kBlock>(rows, row_bytes, columns, panel + step * kPanel);
  for (; step < steps; ++step, rows += sizeof(Word))
    transpose<1>(rows, row_bytes, columns, panel + step * kPanel);
}

// One word of `kDepth` weights for each step and column; what is left of a step or of a panel is zero.
template <class Word, class Weight>
inline bool pack_words(Linear& linear, const char* rows, int64_t row_bytes) {
  constexpr int64_t kDepth = sizeof(Word) / sizeof(Weight);
  const int64_t whole = linear.in_features / kDepth, steps = (linear.in_features + kDepth - 1) / kDepth;
  const int64_t panels = (linear.out_features + kPanel - 1) / kPanel;
  linear.panel = kPanel;
  linear.bytes = static_cast<size_t>(panels * steps * kPanel) * sizeof(Word);
  linear.data = allocate(linear.bytes);
  if (linear.data == nullptr) return false;
  for (int64_t index = 0; index < panels; ++index) {
    Word* panel = static_cast<Word*>(linear.data) + index * steps * kPanel;
    const char* source = rows + index * kPanel * row_bytes;
    const int64_t rest = linear.out_features - index * kPanel, columns = rest < kPanel ? rest : kPanel;
    if (columns < kPanel) std::memset(panel, 0, static_cast<size_t>(steps * kPanel) * sizeof(Word));
    pack_panel(source, row_bytes, columns, whole, panel);
    for (int64_t column = 0; whole < steps && column < kPanel; ++column) {
      Word word{};
      const int64_t last = whole * static_cast<int64_t>(sizeof(Word));
      if (column < columns) std::memcpy(&word, source + column * row_bytes + last, sizeof(Weight));
      panel[whole * kPanel + column] = word;
    }
  }
  return true;
}

inline bool pack_panels(Linear& linear, const char* rows, int64_t row_bytes) {
  switch (linear.scheme) {
    case Scheme::f32: return pack_words<float, float>(linear, rows, row_bytes);
    case Scheme::f16: return pack_words<f16, f16>(linear, rows, row_bytes);
    default: return pack_words<uint32_t, bf16>(linear, rows, row_bytes);
  }
}

}  // namespace octavo::OCTAVO_VARIANT
