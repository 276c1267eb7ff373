// A panel: kPanel columns of a packed weight side by side, read strictly in order.
//
//   for each block of k: [header: scales of the block]
//     for each group of k: [codes: word 0 of every vector of columns, word 1, ...][scales of the group]
#pragma once

#include "../linear_sums.h"
#include "../memory.h"
#include "formats.h"

namespace octavo::OCTAVO_VARIANT {

template <class F>
struct Panel {
  using Codes = typename F::Codes;
  using Scales = typename F::Scales;
  static constexpr int kWords = F::kGroup / Codes::kPerWord;
  static constexpr int kWordBytes = Codes::kPerWord * Codes::kBits * kLanes / 8;
  static constexpr int kCodeBytes = kWords * kVectors * kWordBytes;
  static constexpr int kHeaderBytes = Scales::kHeaderBytes * kPanel;
  static constexpr int kGroupBytes = kCodeBytes + Scales::kGroupBytes * kPanel;
  static constexpr int kBlockBytes = kHeaderBytes + F::kGroups * kGroupBytes;

  static int64_t bytes(int64_t in_features) { return in_features / (F::kGroup * F::kGroups) * kBlockBytes; }

  // Call body(header, group, index of the group) for each group in the order of k.
  template <class Body>
  static void for_each_group(const uint8_t* panel, int64_t in_features, const Body& body) {
    const int64_t num_blocks = in_features / (F::kGroup * F::kGroups);
    for (int64_t block = 0; block < num_blocks; ++block, panel += kBlockBytes)
      for (int group = 0; group < F::kGroups; ++group)
        body(panel, panel + kHeaderBytes + group * kGroupBytes, block * F::kGroups + group);
  }

  static const uint8_t* word(const uint8_t* group, int word, int vector) {
    return group + (word * kVectors + vector) * kWordBytes;
  }
  static f32v scale(const uint8_t* header, const uint8_t* group, int vector) {
    return Scales::scale(header, group + kCodeBytes, vector * kLanes, kPanel);
  }
  static f32v minimum(const uint8_t* header, const uint8_t* group, int vector) {
    return Scales::minimum(header, group + kCodeBytes, vector * kLanes, kPanel);
  }

  // One column of a panel from its blocks.
  static void place(const uint8_t* blocks, int64_t in_features, int column, uint8_t* panel) {
    const int64_t num_blocks = in_features / (F::kGroup * F::kGroups);
    uint8_t codes[F::kGroup];
    for (int64_t block = 0; block < num_blocks; ++block, blocks += F::kBlockBytes, panel += kBlockBytes) {
      for (int index = 0; index < F::kGroups; ++index) {
        uint8_t* group = panel + kHeaderBytes + index * kGroupBytes;
        const Scaling scaling = F::read(blocks, index, codes);
        for (int word = 0; word < kWords; ++word)
          Codes::place(codes + word * Codes::kPerWord, column % kLanes,
                       group + (word * kVectors + column / kLanes) * kWordBytes);
        Scales::place(scaling, column, kPanel, panel, group + kCodeBytes);
      }
    }
  }
};

// Columns beyond out_features stay zero: memory comes so.
template <class F>
bool pack_panels(Linear& linear, const void* rows, int64_t row_bytes) {
  const int64_t num_panels = chunks_of(linear.out_features, kPanel);
  const int64_t panel_bytes = Panel<F>::bytes(linear.in_features);
  linear.panel = kPanel;
  linear.bytes = static_cast<size_t>(num_panels * panel_bytes);
  linear.data = allocate(linear.bytes);
  if (linear.data == nullptr) return false;
  if (linear.out_features % kPanel)
    std::memset(static_cast<uint8_t*>(linear.data) + (num_panels - 1) * panel_bytes, 0,
                static_cast<size_t>(panel_bytes));
  for (int64_t column = 0; column < linear.out_features; ++column)
    Panel<F>::place(static_cast<const uint8_t*>(rows) + column * row_bytes, linear.in_features,
                    static_cast<int>(column % kPanel),
                    static_cast<uint8_t*>(linear.data) + column / kPanel * panel_bytes);
  return true;
}

}  // namespace octavo::OCTAVO_VARIANT
