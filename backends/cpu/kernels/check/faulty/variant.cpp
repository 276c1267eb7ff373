// An instruction set whose only kernel fails as it is told: with library.cpp, pool.cpp and memory
// (memory.cpp, nodes.cpp) a library for the tests of faults (tests/native/test_kernel_faults.py).
//
//   operands: out u8[chunks]    sizes: chunks, fault (0 none, 1 bad_alloc, 2 runtime_error, 3 an int),
//                                      thread (0 the caller's, 1 a worker's, 2 every one)
#include <atomic>
#include <chrono>
#include <new>
#include <stdexcept>
#include <thread>

#include "kernel.h"

namespace octavo {
namespace {

std::thread::id caller;
std::atomic<int64_t> num_arrived{0};

int64_t num_chunks(const Call& call) {
  caller = std::this_thread::get_id();
  num_arrived = 0;
  return call.size(0);
}

// Until every chunk has a thread of its own.
void await_others(int64_t expected) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  for (++num_arrived; num_arrived < expected && std::chrono::steady_clock::now() < deadline;)
    std::this_thread::yield();
}

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
