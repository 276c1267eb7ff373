#include "linear.h"

namespace octavo::OCTAVO_VARIANT {

bool pack_quantized(Linear&, const void*, int64_t) { return false; }
int64_t quantized_chunks(const Call&) { return 0; }
void run_quantized(const Call&, int64_t, Scratch&) {}

}  // namespace octavo::OCTAVO_VARIANT
