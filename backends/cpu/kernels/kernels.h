// The kernels of one instruction set, by name, and what their sources share.
#pragma once

#include <algorithm>

#include "kernel.h"
#include "simd.h"

namespace octavo::OCTAVO_VARIANT {

struct Range {
  int64_t begin, end;
};

inline int64_t chunks_of(int64_t items, int64_t per_chunk) { return (items + per_chunk - 1) / per_chunk; }
inline Range range_of(int64_t chunk, int64_t per_chunk, int64_t items) {
  return {chunk * per_chunk, std::min(items, (chunk + 1) * per_chunk)};
}

// Rows of `dim` elements that one chunk takes: enough that handing it out costs little.
inline int64_t rows_per_chunk(int64_t dim) {
  constexpr int64_t kElements = 32768;
  return std::max<int64_t>(1, kElements / std::max<int64_t>(1, dim));
}

// function(T{}) with T the element type of the instruction's activations.
template <class Function>
inline void by_element(const Call& call, Function function) {
  switch (call.instruction.element) {
    case Element::f32: return function(float{});
    case Element::bf16: return function(bf16{});
    case Element::f16: return function(f16{});
    default: return;
  }
}

// Call function<T>(...) with the element type of the instruction's activations.
#define OCTAVO_BY_ELEMENT(call, function, ...)            \
  switch ((call).instruction.element) {                   \
    case Element::f32: return function<float>(__VA_ARGS__); \
    case Element::bf16: return function<bf16>(__VA_ARGS__); \
    case Element::f16: return function<f16>(__VA_ARGS__);   \
    default: return;                                      \
  }

// rows.cpp
extern const Kernel kEmbed, kTakeRows, kCopy;
// norm.cpp
extern const Kernel kRmsNorm, kAddRmsNorm, kLayerNorm;
// rope.cpp
extern const Kernel kRopeTable, kRope;
// activation.cpp
extern const Kernel kSiluMul, kGeluMul, kGelu, kSoftCap;
// arithmetic.cpp
extern const Kernel kAdd, kSubtract, kMultiply;
// linear.cpp
extern const Kernel kLinear;
bool pack_linear(Linear& linear, const void* rows, int64_t row_bytes);
// write_kv.cpp, attention.cpp
extern const Kernel kWriteKv, kAttention, kAttentionCombine;
// sampling.cpp
extern const Kernel kArgmax, kDraw;

}  // namespace octavo::OCTAVO_VARIANT
