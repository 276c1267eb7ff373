// The product of activations and a prepared weight, whichever way the weight is kept.
#include "linear.h"

namespace octavo::OCTAVO_VARIANT {
namespace {

bool is_dense(Scheme scheme) {
  return scheme == Scheme::f32 || scheme == Scheme::bf16 || scheme == Scheme::f16;
}

bool is_dense(const Call& call) { return is_dense(call.operand<const Linear>(1)->scheme); }

}  // namespace

const Kernel kLinear = {
    [](const Call& call) { return is_dense(call) ? dense_chunks(call) : quantized_chunks(call); },
    [](const Call& call, int64_t chunk, Scratch& scratch) {
      is_dense(call) ? run_dense(call, chunk, scratch) : run_quantized(call, chunk, scratch);
    },
};

bool pack_linear(Linear& linear, const void* rows, int64_t row_bytes) {
  return is_dense(linear.scheme) ? pack_dense(linear, rows, row_bytes)
                                 : pack_quantized(linear, rows, row_bytes);
}

}  // namespace octavo::OCTAVO_VARIANT
