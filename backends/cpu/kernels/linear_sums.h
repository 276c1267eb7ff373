// The columns of a panel, and what becomes of their sums: the bias is added, and a row is stored.
#pragma once

#include "kernels.h"

namespace octavo::OCTAVO_VARIANT {

// A panel is as wide as hides the latency of additions for one row.
constexpr int kVectors = 4;  // of columns: as many chains of additions at once
constexpr int kPanel = kVectors * kLanes;

template <class T>
void store_row(const Linear& linear, const f32v* sums, int64_t column, T* out) {
  for (int v = 0; v < kVectors && column < linear.out_features; ++v, column += kLanes) {
    f32v result = sums[v];
    if (linear.bias != nullptr) result += load(linear.bias + column);
    const int64_t rest = linear.out_features - column;
    if (rest >= kLanes)
      store(out + column, result);
    else
      store_part(out + column, result, static_cast<int>(rest));
  }
}

template <class T>
void store_rows(const Linear& linear, const f32v* sums, int64_t panel, Range rows, T* out) {
  for (int64_t row = rows.begin; row < rows.end; ++row, sums += kVectors)
    store_row(linear, sums, panel * kPanel, out + row * linear.out_features);
}

// A panel's columns of some rows, in the type of the activations or, if the call says so, unrounded.
template <class T>
void store_sums(const Call& call, const f32v* sums, int64_t panel, Range rows) {
  const auto& linear = *call.operand<const Linear>(1);
  if (call.size(4) == 1)
    store_rows(linear, sums, panel, rows, call.operand<float>(2));
  else
    store_rows(linear, sums, panel, rows, call.operand<T>(2));
}

}  // namespace octavo::OCTAVO_VARIANT
