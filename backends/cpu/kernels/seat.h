// A thread's place in the pool: its memory, and what gets it a core where another program took its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#if defined(__linux__)
#include <sched.h>
#endif

#include "kernel.h"

namespace octavo {

// Who computes the last chunk of an instruction is waited for by all others, and if another program took
// its core, for a whole time slice: 3 to 4 ms, in which a prefill runs five instructions. But who waits
// has a core to give away, and the system does not see that in time. So it looks at the other's processor
// time, and where that stands still, pulls the other onto its own core and sleeps.
//
// Pulling lets a thread run on one core only; it gives itself its former freedom back. Elsewhere than on
// Linux, or where the system forbids it, nobody is pulled, and waiting takes as long as it takes.
class alignas(64) Seat {
 public:
#if defined(__linux__)
  static constexpr bool kCanPull = true;
#else
  static constexpr bool kCanPull = false;
#endif
  Scratch scratch;

  // Called by who sits here.
  void take();  // from now on this seat is the calling thread's
  void hold();  // from here to release() others wait for it, and may pull it; again: it still holds
  void release();
  void leave_core_of(const Seat& other);  // where it last held

  // Called by one other thread at a time, while it waits: pull who holds and has had no core since the last
  // look, which was at least 50 us ago. True if that was done.
  void begin_watch() { seen_at_ns_ = -1; }
  bool try_pull();

 private:
  enum State { kFree, kHolds, kPulled };

  bool stands_still();
  void pull();

  std::atomic<int> state_{kFree};
  std::atomic<int> core_{-1};  // where it held or was pulled to
  int64_t seen_at_ns_ = -1;
  int64_t seen_time_ns_ = 0;
#if defined(__linux__)
  std::atomic<int> thread_{0};
  std::atomic<clockid_t> clock_{0};  // of its processor time
  std::mutex pulling_;
  cpu_set_t allowed_;  // where it may run when it is not pulled
#endif
};

}  // namespace octavo
