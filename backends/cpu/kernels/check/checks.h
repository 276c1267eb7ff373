// Every check takes some shapes of some opcodes through a machine; the oracles are plain loops.
#pragma once

#include "machine.h"

namespace octavo::check {

constexpr Element kElements[] = {Element::f32, Element::bf16, Element::f16};
constexpr Element kCaches[] = {Element::f32, Element::bf16, Element::f16, Element::i8};

void check_rows(Machine& machine);
void check_norms(Machine& machine);
void check_rotation(Machine& machine);
void check_activations(Machine& machine);
void check_arithmetic(Machine& machine);
void check_dense_products(Machine& machine);
void check_packed_products(Machine& machine);
void check_caches(Machine& machine);
void check_attention(Machine& machine);
void check_sampling(Machine& machine);

}  // namespace octavo::check
