#include "kernels.h"

namespace octavo::OCTAVO_VARIANT {

const Kernel kRopeTable = {};
const Kernel kRope = {};

}  // namespace octavo::OCTAVO_VARIANT
