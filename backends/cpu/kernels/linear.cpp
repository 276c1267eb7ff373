#include "kernels.h"

namespace octavo::OCTAVO_VARIANT {

const Kernel kLinear = {};
bool pack_linear(Linear&, const void*, int64_t) { return false; }

}  // namespace octavo::OCTAVO_VARIANT
