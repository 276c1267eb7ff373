// What this processor has, where the compiler's own __builtin_cpu_supports cannot tell.
#pragma once

namespace octavo {

bool has_arm_bf16();  // the BF16 extension of Armv8.6
bool has_power9();    // Power ISA 3.0

}  // namespace octavo
