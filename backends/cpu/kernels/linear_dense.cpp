#include "linear.h"

namespace octavo::OCTAVO_VARIANT {

bool pack_dense(Linear&, const void*, int64_t) { return false; }
int64_t dense_chunks(const Call&) { return 0; }
void run_dense(const Call&, int64_t, Scratch&) {}

}  // namespace octavo::OCTAVO_VARIANT
