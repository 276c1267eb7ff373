// A product with a weight matrix: one family for weights of 16 and 32 bits, one for packed blocks.
#pragma once

#include "kernels.h"

namespace octavo::OCTAVO_VARIANT {

// linear_dense.cpp: Scheme::f32, bf16, f16.
bool pack_dense(Linear& linear, const void* rows, int64_t row_bytes);
int64_t dense_chunks(const Call& call);
void run_dense(const Call& call, int64_t chunk, Scratch& scratch);

// linear_quantized.cpp: the others.
bool pack_quantized(Linear& linear, const void* rows, int64_t row_bytes);
int64_t quantized_chunks(const Call& call);
void run_quantized(const Call& call, int64_t chunk, Scratch& scratch);

}  // namespace octavo::OCTAVO_VARIANT
