// Sleeping until a 32-bit word changes, in user space as long as nobody sleeps.
#pragma once

#include <atomic>
#include <cstdint>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <condition_variable>
#include <mutex>
#endif

namespace octavo {

// A word to sleep on. `sleep` returns when it no longer holds `seen`, and may return early.
class Futex {
 public:
  std::atomic<uint32_t> word{0};

#if defined(__linux__)
  void sleep(uint32_t seen) { call(FUTEX_WAIT_PRIVATE, seen); }
  void wake(int num_threads) { call(FUTEX_WAKE_PRIVATE, static_cast<uint32_t>(num_threads)); }

 private:
  void call(int operation, uint32_t value) {
    syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), operation, value, nullptr, nullptr, 0);
  }
#else
  void sleep(uint32_t seen) {
    std::unique_lock<std::mutex> lock(mutex_);
    condition_.wait(lock, [&] { return word.load() != seen; });
  }
  void wake(int) {
    { const std::lock_guard<std::mutex> lock(mutex_); }
    condition_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable condition_;
#endif
};

}  // namespace octavo
