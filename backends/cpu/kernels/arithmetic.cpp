#include "kernels.h"

namespace octavo::OCTAVO_VARIANT {

const Kernel kAdd = {};
const Kernel kSubtract = {};
const Kernel kMultiply = {};

}  // namespace octavo::OCTAVO_VARIANT
