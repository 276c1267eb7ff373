// For kernels of tests: as many chunks as threads, none of which ends before each has a thread of its own.
#pragma once

#include <atomic>
#include <chrono>
#include <thread>

#include "kernel.h"

namespace octavo {

inline std::thread::id caller;
inline std::atomic<int64_t> num_arrived{0};

inline int64_t num_chunks(const Call& call) {
  caller = std::this_thread::get_id();
  num_arrived = 0;
  return call.size(0);
}

// Until every chunk has a thread of its own.
inline void await_others(int64_t expected) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  for (++num_arrived; num_arrived < expected && std::chrono::steady_clock::now() < deadline;)
    std::this_thread::yield();
}

}  // namespace octavo
