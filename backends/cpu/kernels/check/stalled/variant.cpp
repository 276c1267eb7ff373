// An instruction set whose only kernel keeps one thread from its core as it is told, like a busy neighbour: a
// library for the tests of the pool (tests/native/test_stalled_threads.py).
//
//   operands: out i32[chunks, 2] = thread (0 the caller's, 1 a worker's), how many cores it may run on
//   sizes: chunks, thread that stands still (2 none), for how many milliseconds
#include <sched.h>

#include <chrono>
#include <thread>

#include "check/chunk_for_each_thread.h"

namespace octavo {
namespace {

void run(const Call& call, int64_t chunk, Scratch&) {
  await_others(call.size(0));
  const int thread = std::this_thread::get_id() == caller ? 0 : 1;
  if (thread == call.size(1)) std::this_thread::sleep_for(std::chrono::milliseconds(call.size(2)));
  cpu_set_t allowed;
  sched_getaffinity(0, sizeof allowed, &allowed);
  auto* out = call.operand<int32_t>(0) + 2 * chunk;
  out[0] = thread;
  out[1] = CPU_COUNT(&allowed);
}

bool is_supported() { return true; }
bool pack_linear(Linear&, const void*, int64_t) { return false; }

const Kernel kStalled = {num_chunks, run};
const Variant kVariant = {"stalled", is_supported, {&kStalled}, pack_linear};

}  // namespace

const Variant* const kVariants[] = {&kVariant};
const int kNumVariants = 1;

}  // namespace octavo
