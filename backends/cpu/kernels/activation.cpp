#include "kernels.h"

namespace octavo::OCTAVO_VARIANT {

const Kernel kSiluMul = {};
const Kernel kGeluMul = {};
const Kernel kGelu = {};
const Kernel kSoftCap = {};

}  // namespace octavo::OCTAVO_VARIANT
