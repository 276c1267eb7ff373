// Checks every kernel of every instruction set that this processor has, without Python: what
// `make test-cross` runs under an emulator for other processors.
#include <cstdio>

#include "checks.h"

using namespace octavo::check;

int main() {
  bool all_well = true;
  for (const std::string& variant : variants()) {
    Machine machine(variant);
    for (const auto check : {check_rows, check_norms, check_rotation, check_activations, check_arithmetic,
                             check_dense_products, check_packed_products, check_caches, check_attention,
                             check_sampling})
      check(machine);
    all_well &= machine.report();
  }
  std::puts(all_well ? "All kernels agree with their oracles." : "Some kernels are wrong.");
  return all_well ? 0 : 1;
}
