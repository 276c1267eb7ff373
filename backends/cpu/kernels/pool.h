// Threads that share the chunks of a kernel, without a barrier that spins for a late one.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "kernel.h"

namespace octavo {

// `num_threads` threads, the calling one included. One thread calls at a time.
class Pool {
 public:
  explicit Pool(int num_threads);
  ~Pool();
  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Run all chunks and wait for them.
  void run(const Kernel& kernel, const Call& call);

 private:
  void work(int worker);
  void take_chunks(Scratch& scratch);

  std::vector<std::thread> workers_;
  std::vector<Scratch> scratches_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  const Kernel* kernel_ = nullptr;
  const Call* call_ = nullptr;
  int64_t num_chunks_ = 0;
  std::atomic<int64_t> next_{0};
  uint64_t job_ = 0;
  int busy_ = 0;
  bool stop_ = false;
};

}  // namespace octavo
