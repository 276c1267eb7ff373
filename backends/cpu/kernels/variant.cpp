// The table of one instruction set; the build defines OCTAVO_VARIANT and OCTAVO_SUPPORTED.
#include "kernels.h"
#include "processor.h"

#define OCTAVO_TEXT_(x) #x
#define OCTAVO_TEXT(x) OCTAVO_TEXT_(x)

namespace octavo::OCTAVO_VARIANT {

extern const Variant kVariant;
// A constant, so that loading the library runs no code that this processor may not have.
constexpr Variant kVariant = {
    OCTAVO_TEXT(OCTAVO_VARIANT),
    [] { return bool(OCTAVO_SUPPORTED); },
    {&kEmbed, &kTakeRows, &kRmsNorm, &kAddRmsNorm, &kLayerNorm, &kRopeTable, &kRope, &kSiluMul, &kGeluMul,
     &kGelu, &kSoftCap, &kAdd, &kSubtract, &kMultiply, &kCopy, &kLinear, &kWriteKv, &kAttention,
     &kAttentionCombine, &kArgmax, &kDraw},
    pack_linear,
};

}  // namespace octavo::OCTAVO_VARIANT
