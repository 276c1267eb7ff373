#include "seat.h"

#if defined(__linux__)

#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace octavo {
namespace {

constexpr int64_t kLook_ns = 50'000;

struct Thread {
  int id = static_cast<int>(syscall(SYS_gettid));
  clockid_t clock = 0;
  Thread() { pthread_getcpuclockid(pthread_self(), &clock); }
};

int64_t time_ns(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

void Seat::take() {
  thread_local const Thread self;
  thread_.store(self.id, std::memory_order_relaxed);
  clock_.store(self.clock, std::memory_order_relaxed);
}

void Seat::hold() {
  if (state_.load(std::memory_order_relaxed) == kPulled) release();
  core_.store(sched_getcpu(), std::memory_order_relaxed);
  if (state_.load(std::memory_order_relaxed) == kFree) state_.store(kHolds, std::memory_order_release);
}

void Seat::release() {
  if (state_.exchange(kFree) != kPulled) return;
  const std::lock_guard<std::mutex> lock(pulling_);  // whoever pulls is done when it gives this back
  sched_setaffinity(0, sizeof allowed_, &allowed_);
}

void Seat::leave_core_of(const Seat& other) {
  const int core = sched_getcpu();
  if (core < 0 || core != other.core_.load(std::memory_order_relaxed)) return;
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  cpu_set_t others = allowed;
  CPU_CLR(static_cast<size_t>(core), &others);
  if (sched_setaffinity(0, sizeof others, &others) == 0) sched_setaffinity(0, sizeof allowed, &allowed);
}

bool Seat::try_pull() {
  if (state_ != kHolds) {
    begin_watch();
    return false;
  }
  if (!stands_still()) return false;
  const std::lock_guard<std::mutex> lock(pulling_);
  int holds = kHolds;
  if (!state_.compare_exchange_strong(holds, kPulled)) return false;
  pull();
  return true;
}

bool Seat::stands_still() {
  const int64_t now_ns = time_ns(CLOCK_MONOTONIC);
  const int64_t since_ns = now_ns - seen_at_ns_;
  const bool is_first = seen_at_ns_ < 0;
  if (!is_first && since_ns < kLook_ns) return false;
  const int64_t before_ns = seen_time_ns_;
  seen_time_ns_ = time_ns(clock_);
  seen_at_ns_ = now_ns;
  return !is_first && seen_time_ns_ - before_ns < since_ns / 4;
}

void Seat::pull() {
  const int thread = thread_;
  if (sched_getaffinity(thread, sizeof allowed_, &allowed_) != 0) {
    CPU_ZERO(&allowed_);  // which release() cannot set either
    return;
  }
  const int core = sched_getcpu();
  cpu_set_t here;
  CPU_ZERO(&here);
  CPU_SET(static_cast<size_t>(core), &here);
  if (sched_setaffinity(thread, sizeof here, &here) == 0) core_ = core;
}

}  // namespace octavo

#else

namespace octavo {
void Seat::take() {}
void Seat::hold() {}
void Seat::release() {}
void Seat::leave_core_of(const Seat&) {}
bool Seat::try_pull() { return false; }
}  // namespace octavo

#endif
