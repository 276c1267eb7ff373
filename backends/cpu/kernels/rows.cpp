#include "kernels.h"

namespace octavo::OCTAVO_VARIANT {

const Kernel kEmbed = {};
const Kernel kTakeRows = {};
const Kernel kCopy = {};

}  // namespace octavo::OCTAVO_VARIANT
