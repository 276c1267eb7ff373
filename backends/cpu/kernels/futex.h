// Sleeping until a 32-bit word changes, in user space as long as nobody sleeps.
#pragma once

#include <atomic>
#include <cstdint>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#else
#include <chrono>
#include <condition_variable>
#include <mutex>
#endif

namespace octavo {

// A word to sleep on. `sleep` returns when it no longer holds `seen`, and may return early;
// after about `limit_us` (below a second) in any case, unless that is negative.
class Futex {
 public:
  std::atomic<uint32_t> word{0};

#if defined(__linux__)
  void sleep(uint32_t seen, int limit_us) {
    const timespec limit{0, limit_us * 1000L};
    call(FUTEX_WAIT_PRIVATE, seen, limit_us < 0 ? nullptr : &limit);
  }
  void wake(int num_threads) { call(FUTEX_WAKE_PRIVATE, static_cast<uint32_t>(num_threads)); }

 private:
  void call(int operation, uint32_t value, const timespec* limit = nullptr) {
    syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), operation, value, limit, nullptr, 0);
  }
#else
  void sleep(uint32_t seen, int limit_us) {
    const auto has_changed = [&] { return word.load() != seen; };
    std::unique_lock<std::mutex> lock(mutex_);
    if (limit_us < 0)
      condition_.wait(lock, has_changed);
    else
      condition_.wait_for(lock, std::chrono::microseconds(limit_us), has_changed);
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
