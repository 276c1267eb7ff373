// The contract between Python and the kernels: an instruction is one op on one step's arrays.
//
// A program is an array of instructions and a table of pointers that their operands index. Python
// records it once (octavo_cpu/native/trace.py) and hands it over whole, so that a step costs one
// call. octavo_cpu/native/instruction.py mirrors this file; a test compares the two.
#pragma once

#include <cstdint>

namespace octavo {

constexpr int kMaxOperands = 11;
constexpr int kMaxSizes = 16;
constexpr int kMaxScalars = 4;

// Element types of activations and caches.
enum class Element : int32_t { f32 = 0, bf16 = 1, f16 = 2, i8 = 3 };

// Strides are in elements. A matrix has contiguous rows and a stride between them. "view" operands
// are [outer, inner, dim] with two strides, as a slice of heads out of a row of features is.
// Outputs are contiguous. `element` is the type of the activations.
//
//   opcode          operands                                sizes                      scalars
enum class Opcode : int32_t {
  embed = 0,      // table, token_ids, out                   rows, dim, vocab
  take_rows = 1,  // x, indices, out                         rows, dim, x_stride, num_x_rows
  rms_norm = 2,   // x, weight, out                          outer, inner, dim, x_outer, x_inner ; eps
  add_rms_norm = 3,  // x, residual, weight, out, total      rows, dim, x_stride, residual_stride ; eps
  layer_norm = 4,    // x, weight, bias|-1, out              outer, inner, dim, x_outer, x_inner ; eps
  rope_table = 5,    // positions, context_lens, inv_freq f32[half], long_inv_freq|-1, cos, sin (f32)
                     //                                      tokens, half, kind, original_max_len
                     // (kind: 1 dynamic, 2 longrope, 0 for all that inv_freq says already)
                     //                                      ; attention_factor, base, factor
  rope = 6,          // x, cos, sin, out                     tokens, heads, head_dim, x_token, x_head, half
  silu_mul = 7,      // gate_up, out                         rows, inner, gate_up_stride
  gelu_mul = 8,      // gate_up, out                         rows, inner, gate_up_stride, tanh
  gelu = 9,          // x, out                               rows, dim, x_stride, tanh
  soft_cap = 10,     // x, out                               rows, dim, x_stride ; cap
  add = 11,          // a, b|-1, out                         rows, dim, a_stride, b_stride (0: one row) ; b
  subtract = 12,     // the same; a missing operand b is the scalar
  multiply = 13,     //
  copy = 14,         // x, out                               outer, inner, dim, x_outer, x_inner
  linear = 15,       // x, weight (a Linear), out            rows, x_stride, in_features, out_features,
                  //                                         wide (1: out is f32, not rounded)
  write_kv = 16,     // k, v, k_cache, v_cache, scales|-1, plan
                     //                tokens, kv_heads, head_dim, k_token, k_head, v_token, v_head,
                     //                block_size, cache element
  attention = 17,    // q, k_cache, v_cache, scales|-1, plan, scratch, sinks|-1, out
                     //                tokens, heads, kv_heads, head_dim, q_token, q_head, block_size,
                     //                window (0: none), causal, cache element ; scale, soft_cap (0: none)
  attention_combine = 18,  // the operands and sizes of `attention`: joins what its chunks left
  argmax = 19,  // logits, out i32, valid u8                 rows, vocab, stride
  draw = 20,    // logits, temperature, top_k, top_p, min_p, uniform, out i32, valid u8
                //                                           rows, vocab, stride
  count
};

struct Instruction {
  Opcode opcode;
  Element element;
  int32_t operands[kMaxOperands];  // -1: none
  int32_t padding;
  int64_t sizes[kMaxSizes];
  float scalars[kMaxScalars];
};
static_assert(sizeof(Instruction) == 4 * 14 + 8 * 16 + 4 * 4, "mirrored by a NumPy dtype");

// How a weight matrix [out_features, in_features] arrives. The packed ones are GGUF's blocks.
enum class Scheme : int32_t { f32 = 0, bf16 = 1, f16 = 2, q4_0 = 3, q4_1 = 4, q8_0 = 5, q4_k = 6, q6_k = 7 };

}  // namespace octavo
