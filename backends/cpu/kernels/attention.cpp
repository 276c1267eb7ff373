#include "kernels.h"

namespace octavo::OCTAVO_VARIANT {

const Kernel kAttention = {};
const Kernel kAttentionCombine = {};

}  // namespace octavo::OCTAVO_VARIANT
