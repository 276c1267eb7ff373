// RMSNorm (Zhang and Sennrich, 2019), alone and with the addition to the residual stream before it,
// and layer normalisation (Ba, Kiros and Hinton, 2016).
#include "kernels.h"

namespace octavo::OCTAVO_VARIANT {
namespace {

// The sum of function(lanes) over a row: four sums side by side, so that none waits for the last
// addition. The order of the additions depends on dim alone. What is behind the row adds nothing.
template <class T, class Function>
float sum_over(const T* x, int64_t dim, Function function) {
  f32v sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= dim; i += 4 * kLanes)
    for (int part = 0; part < 4; ++part) sums[part] = function(load(x + i + part * kLanes), sums[part]);
  for (; i + kLanes <= dim; i += kLanes) sums[0] = function(load(x + i), sums[0]);
  if (i < dim) {
    const int rest = static_cast<int>(dim - i);
    sums[1] = keep_first(function(load(x + i, rest), sums[1]), sums[1], rest);
  }
  return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

template <class T>
void rms_norm_row(const T* x, const T* weight, float eps, int64_t dim, T* out) {
  const float squares = sum_over(x, dim, [](f32v lanes, f32v sums) { return fma(lanes, lanes, sums); });
  const f32v scale = splat(1.0f / std::sqrt(squares / static_cast<float>(dim) + eps));
  by_lanes(dim, [=](int64_t i, auto count) {
    store(out + i, load(x + i, count) * scale * load(weight + i, count), count);
  });
}

template <class T>
void layer_norm_row(const T* x, const T* weight, const T* bias, float eps, int64_t dim, T* out) {
  const float count = static_cast<float>(dim);
  const f32v mean = splat(sum_over(x, dim, [](f32v lanes, f32v sums) { return sums + lanes; }) / count);
  const float squares = sum_over(x, dim, [=](f32v lanes, f32v sums) {
    const f32v centred = lanes - mean;
    return fma(centred, centred, sums);
  });
  const f32v scale = splat(1.0f / std::sqrt(squares / count + eps));
  by_lanes(dim, [=](int64_t i, auto count) {
    f32v normalised = (load(x + i, count) - mean) * scale * load(weight + i, count);
    if (bias != nullptr) normalised += load(bias + i, count);
    store(out + i, normalised, count);
  });
}

// Rows of a view: outer, inner, dim, x_outer, x_inner.
int64_t view_chunks(const Call& call) {
  return chunks_of(call.size(0) * call.size(1), rows_per_chunk(call.size(2)));
}
template <class T>
const T* view_row(const Call& call, int64_t row) {
  const int64_t inner = call.size(1);
  return call.operand<const T>(0) + row / inner * call.size(3) + row % inner * call.size(4);
}
Range view_range(const Call& call, int64_t chunk) {
  return range_of(chunk, rows_per_chunk(call.size(2)), call.size(0) * call.size(1));
}

void rms_norm(const Call& call, int64_t chunk, Scratch&) {
  by_element(call, [&](auto zero) {
    using T = decltype(zero);
    const Range rows = view_range(call, chunk);
    const int64_t dim = call.size(2);
    for (int64_t row = rows.begin; row < rows.end; ++row)
      rms_norm_row(view_row<T>(call, row), call.operand<const T>(1), call.scalar(0), dim,
                   call.operand<T>(2) + row * dim);
  });
}

void layer_norm(const Call& call, int64_t chunk, Scratch&) {
  by_element(call, [&](auto zero) {
    using T = decltype(zero);
    const Range rows = view_range(call, chunk);
    const int64_t dim = call.size(2);
    for (int64_t row = rows.begin; row < rows.end; ++row)
      layer_norm_row(view_row<T>(call, row), call.operand<const T>(1), call.operand<const T>(2),
                     call.scalar(0), dim, call.operand<T>(3) + row * dim);
  });
}

int64_t add_chunks(const Call& call) { return chunks_of(call.size(0), rows_per_chunk(2 * call.size(1))); }

void add_rms_norm(const Call& call, int64_t chunk, Scratch&) {
  by_element(call, [&](auto zero) {
    using T = decltype(zero);
    const int64_t dim = call.size(1);
    const Range rows = range_of(chunk, rows_per_chunk(2 * dim), call.size(0));
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      const T* x = call.operand<const T>(0) + row * call.size(2);
      const T* residual = call.operand<const T>(1) + row * call.size(3);
      T* total = call.operand<T>(4) + row * dim;
      by_lanes(dim, [=](int64_t i, auto count) {
        store(total + i, load(x + i, count) + load(residual + i, count), count);
      });
      // The norm is of the total as it is stored: rounded.
      rms_norm_row<T>(total, call.operand<const T>(2), call.scalar(0), dim, call.operand<T>(3) + row * dim);
    }
  });
}

}  // namespace

const Kernel kRmsNorm = {view_chunks, rms_norm};
const Kernel kLayerNorm = {view_chunks, layer_norm};
const Kernel kAddRmsNorm = {add_chunks, add_rms_norm};

}  // namespace octavo::OCTAVO_VARIANT
