// An instruction set whose only kernel fails as it is told: with library.cpp, pool.cpp and memory
// (memory.cpp, nodes.cpp) a library for the tests of faults (tests/native/test_kernel_faults.py).
//
//   operands: out u8[chunks]    sizes: chunks, fault (0 none, 1 bad_alloc, 2 runtime_error, 3 an int),
//                                      thread (0 the caller's, 1 a worker's, 2 every one)
#include <new>
#include <stdexcept>
#include <thread>

#include "check/chunk_for_each_thread.h"

namespace octavo {
namespace {

[[noreturn]] void fail(int64_t fault) {
  if (fault == 1) throw std::bad_alloc();
  if (fault == 2) throw std::runtime_error("the kernel is broken");
  throw 3;
}

void run(const Call& call, int64_t chunk, Scratch&) {
  await_others(call.size(0));
  const bool is_worker = std::this_thread::get_id() != caller;
  if (call.size(1) != 0 && (call.size(2) == 2 || is_worker == (call.size(2) == 1))) fail(call.size(1));
  call.operand<uint8_t>(0)[chunk] = 1;
}

bool is_supported() { return true; }
bool pack_linear(Linear&, const void*, int64_t) { return false; }

const Kernel kFaulty = {num_chunks, run};
const Variant kVariant = {"faulty", is_supported, {&kFaulty}, pack_linear};

}  // namespace

const Variant* const kVariants[] = {&kVariant};
const int kNumVariants = 1;

}  // namespace octavo
