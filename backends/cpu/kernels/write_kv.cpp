#include "kernels.h"

namespace octavo::OCTAVO_VARIANT {

const Kernel kWriteKv = {};

}  // namespace octavo::OCTAVO_VARIANT
