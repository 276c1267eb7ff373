// SiLU and GELU, alone and gating the other half of a row, and the cap on logits.
#include "functions.h"
#include "kernels.h"

namespace octavo::OCTAVO_VARIANT {
namespace {

// Each activation is a function object made from its instruction.
struct Silu {
  explicit Silu(const Call&) {}
  f32v operator()(f32v x) const { return silu(x); }
};
struct GeluTanh {
  explicit GeluTanh(const Call&) {}
  f32v operator()(f32v x) const { return gelu_tanh(x); }
};
struct GeluErf {
  explicit GeluErf(const Call&) {}
  f32v operator()(f32v x) const { return gelu_erf(x); }
};
struct SoftCap {
  explicit SoftCap(const Call& call) : cap(splat(call.scalar(0))) {}
  f32v operator()(f32v x) const { return cap * tanh(x / cap); }
  f32v cap;
};

// An activation costs several times a copy: shorter chunks pay.
int64_t rows_of_chunk(const Call& call) { return rows_per_chunk(4 * call.size(1)); }
int64_t row_chunks(const Call& call) { return chunks_of(call.size(0), rows_of_chunk(call)); }

// x, out: rows, dim, x_stride.
template <class Activation>
void activate(const Call& call, int64_t chunk, Scratch&) {
  by_element(call, [&](auto zero) {
    using T = decltype(zero);
    const Activation activation(call);
    const int64_t dim = call.size(1);
    const Range rows = range_of(chunk, rows_of_chunk(call), call.size(0));
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      const T* x = call.operand<const T>(0) + row * call.size(2);
      T* out = call.operand<T>(1) + row * dim;
      by_lanes(dim, [=](int64_t i, auto count) { store(out + i, activation(load(x + i, count)), count); });
    }
  });
}

// gate_up, out: rows, inner, gate_up_stride.
template <class Activation>
void gate(const Call& call, int64_t chunk, Scratch&) {
  by_element(call, [&](auto zero) {
    using T = decltype(zero);
    const Activation activation(call);
    const int64_t inner = call.size(1);
    const Range rows = range_of(chunk, rows_of_chunk(call), call.size(0));
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      const T* gates = call.operand<const T>(0) + row * call.size(2);
      const T* ups = gates + inner;
      T* out = call.operand<T>(1) + row * inner;
      by_lanes(inner, [=](int64_t i, auto count) {
        store(out + i, activation(load(gates + i, count)) * load(ups + i, count), count);
      });
    }
  });
}

bool is_tanh(const Call& call) { return call.size(3) != 0; }

}  // namespace

const Kernel kSiluMul = {row_chunks, gate<Silu>};
const Kernel kGeluMul = {row_chunks, [](const Call& call, int64_t chunk, Scratch& scratch) {
                           (is_tanh(call) ? gate<GeluTanh> : gate<GeluErf>)(call, chunk, scratch);
                         }};
const Kernel kGelu = {row_chunks, [](const Call& call, int64_t chunk, Scratch& scratch) {
                        (is_tanh(call) ? activate<GeluTanh> : activate<GeluErf>)(call, chunk, scratch);
                      }};
const Kernel kSoftCap = {row_chunks, activate<SoftCap>};

}  // namespace octavo::OCTAVO_VARIANT
