// Sums, differences and products of rows with rows, with one row, or with a number.
#include "kernels.h"

namespace octavo::OCTAVO_VARIANT {
namespace {

struct Add {
  f32v operator()(f32v a, f32v b) const { return a + b; }
};
struct Subtract {
  f32v operator()(f32v a, f32v b) const { return a - b; }
};
struct Multiply {
  f32v operator()(f32v a, f32v b) const { return a * b; }
};

int64_t row_chunks(const Call& call) { return chunks_of(call.size(0), rows_per_chunk(call.size(1))); }

template <class T, class Operation>
void combine_rows(const Call& call, int64_t chunk) {
  const int64_t dim = call.size(1);
  const f32v number = splat(call.scalar(0));
  const Range rows = range_of(chunk, rows_per_chunk(dim), call.size(0));
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const T* a = call.operand<const T>(0) + row * call.size(2);
    const T* b = call.operand<const T>(1);
    T* out = call.operand<T>(2) + row * dim;
    if (b != nullptr) {
      b += row * call.size(3);
      by_lanes(dim, [=](int64_t i, auto count) {
        store(out + i, Operation()(load(a + i, count), load(b + i, count)), count);
      });
    } else {
      by_lanes(dim, [=](int64_t i, auto count) {
        store(out + i, Operation()(load(a + i, count), number), count);
      });
    }
  }
}

template <class Operation>
void run(const Call& call, int64_t chunk, Scratch&) {
  by_element(call, [&](auto zero) { combine_rows<decltype(zero), Operation>(call, chunk); });
}

}  // namespace

const Kernel kAdd = {row_chunks, run<Add>};
const Kernel kSubtract = {row_chunks, run<Subtract>};
const Kernel kMultiply = {row_chunks, run<Multiply>};

}  // namespace octavo::OCTAVO_VARIANT
