#include "processor.h"

#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace octavo {

bool has_arm_bf16() {
#if defined(__linux__) && defined(__aarch64__)
  constexpr unsigned long kBf16 = 1ul << 14;  // HWCAP2_BF16
  return (getauxval(AT_HWCAP2) & kBf16) != 0;
#elif defined(__APPLE__)
  int value = 0;
  size_t bytes = sizeof value;
  return sysctlbyname("hw.optional.arm.FEAT_BF16", &value, &bytes, nullptr, 0) == 0 && value != 0;
#else
  return false;
#endif
}

bool has_power9() {
#if defined(__linux__) && defined(__powerpc64__)
  constexpr unsigned long kArch300 = 0x00800000;  // PPC_FEATURE2_ARCH_3_00
  return (getauxval(AT_HWCAP2) & kArch300) != 0;
#else
  return false;
#endif
}

}  // namespace octavo
