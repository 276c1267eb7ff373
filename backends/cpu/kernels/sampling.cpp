#include "kernels.h"

namespace octavo::OCTAVO_VARIANT {

const Kernel kArgmax = {};
const Kernel kDraw = {};

}  // namespace octavo::OCTAVO_VARIANT
