// Threads that share the chunks of a kernel, and never wait for one that has not begun.
#pragma once

#include <atomic>
#include <exception>
#include <thread>
#include <vector>

#include "futex.h"
#include "kernel.h"
#include "seat.h"

namespace octavo {

// `num_threads` threads, the calling one included. One thread calls at a time.
//
// A job is its chunks, which whoever is free takes one by one. All that a thread must know to take
// one is in a single word,
//
//     state_   | number of the job (32 bits) | chunks not yet taken (32 bits) |
//
// so that taking is one compare-and-swap, and fails for a job that is over: a thread that comes late
// finds nothing and is not waited for. The caller takes chunks too, and then waits for those that
// others are computing. Waiting spins for a few microseconds, since instructions follow each other
// closely, and then sleeps: beside a busy neighbour a spinning thread would hold the very core that
// the awaited one needs. A thread that is awaited and has lost its core gets that of who waits (seat.h).
class Pool {
 public:
  explicit Pool(int num_threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int num_threads() const { return static_cast<int>(seats_.size()); }

  // The calling thread's, around any number of runs.
  class Step {
   public:
    explicit Step(Pool& pool);
    ~Step();
    Step(const Step&) = delete;
    Step& operator=(const Step&) = delete;

   private:
    Pool& pool_;
  };

  // Run all chunks and wait for them. Throws what the first chunk that failed threw.
  void run(const Kernel& kernel, const Call& call);

 private:
  void stop();
  void share(int64_t num_chunks);
  void work(Seat& seat);
  bool try_chunk(Seat& seat);
  bool await_job(Seat& seat);
  void await_chunks();

  bool has_core_each_;
  bool pulls_;
  int most_helpers_;  // that one job wakes
  std::vector<Seat> seats_;  // the first is the caller's
  std::vector<std::thread> workers_;

  // Of the current job. Written while no chunk can be taken, read by who has taken one.
  const Kernel* kernel_ = nullptr;
  const Call* call_ = nullptr;
  int64_t num_chunks_ = 0;
  uint32_t job_ = 0;

  alignas(64) std::atomic<uint64_t> state_{0};
  alignas(64) Futex unfinished_;  // chunks of the current job that are not done
  std::atomic<bool> caller_sleeps_{false};
  std::atomic<bool> has_failed_{false};
  std::exception_ptr fault_;  // what the first chunk that failed threw
  alignas(64) Futex wake_;  // changes when sleepers have something to do
  std::atomic<int> num_sleepers_{0};
  std::atomic<bool> in_step_{false};
  std::atomic<bool> is_caller_watched_{false};
  std::atomic<bool> stop_{false};
};

}  // namespace octavo
