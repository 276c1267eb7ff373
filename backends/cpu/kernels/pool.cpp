#include "pool.h"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace octavo {
namespace {

// One look at the word costs about 20 ns with the pause.
constexpr int kSpinsForJob = 2000;      // the time that ops too small to share take, and more
constexpr int kSpinsForChunks = 500;    // then the thread that has the chunk was probably interrupted
constexpr int kWatchInterval_us = 100;  // between looks at a thread that is waited for
constexpr int kForever = -1;
constexpr uint64_t kTaken = 0xffffffff;  // mask of the chunks not yet taken

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#elif defined(__powerpc64__)
  asm volatile("or 27,27,27");
#endif
}

}  // namespace

Scratch::~Scratch() { std::free(memory_); }

void* Scratch::reserve(size_t bytes) {
  if (bytes > bytes_) {
    std::free(memory_);
    bytes_ = 0;
    const size_t pages = (bytes + 4095) / 4096 * 4096;
    memory_ = std::aligned_alloc(64, pages);
    if (memory_ == nullptr) throw std::bad_alloc();
    bytes_ = pages;
  }
  return memory_;
}

Pool::Pool(int num_threads) : seats_(static_cast<size_t>(std::max(1, num_threads))) {
  // With more threads than cores a spinning one holds up those that have a chunk: then nobody spins,
  // and no more are woken than can run.
  const int num_cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  has_core_each_ = num_threads <= num_cores;
  pulls_ = Seat::kCanPull && has_core_each_;
  most_helpers_ = std::max(1, num_cores - 1);
  try {
    for (size_t worker = 1; worker < seats_.size(); ++worker)
      workers_.emplace_back([this, worker] { work(seats_[worker]); });
  } catch (...) {  // the system gives no more threads
    stop();
    throw;
  }
}

Pool::~Pool() { stop(); }

void Pool::stop() {
  stop_ = true;
  ++wake_.word;
  wake_.wake(num_threads());
  for (auto& worker : workers_) worker.join();
}

Pool::Step::Step(Pool& pool) : pool_(pool) {
  if (pool.workers_.empty()) return;
  pool.seats_[0].take();
  pool.seats_[0].hold();
  pool.in_step_ = true;
}

Pool::Step::~Step() {
  if (pool_.workers_.empty()) return;
  pool_.in_step_ = false;
  pool_.seats_[0].release();
}

void Pool::run(const Kernel& kernel, const Call& call) {
  const int64_t num_chunks = kernel.num_chunks(call);
  if (num_chunks <= 1 || workers_.empty()) {
    for (int64_t chunk = 0; chunk < num_chunks; ++chunk) kernel.run(call, chunk, seats_[0].scratch);
    return;
  }
  seats_[0].hold();
  kernel_ = &kernel;
  call_ = &call;
  share(num_chunks);
  while (try_chunk(seats_[0])) {
  }
  await_chunks();
  if (has_failed_.load(std::memory_order_relaxed)) {
    has_failed_ = false;
    std::rethrow_exception(std::exchange(fault_, nullptr));
  }
}

void Pool::share(int64_t num_chunks) {
  num_chunks_ = num_chunks;
  unfinished_.word.store(static_cast<uint32_t>(num_chunks), std::memory_order_relaxed);
  state_ = uint64_t{++job_} << 32 | static_cast<uint64_t>(num_chunks);
  const int sleepers = num_sleepers_;  // after the state: who counted itself later has looked at it
  if (sleepers > 0) {
    ++wake_.word;
    const int helpers = std::min(sleepers, most_helpers_);
    wake_.wake(num_chunks - 1 < helpers ? static_cast<int>(num_chunks - 1) : helpers);
  }
}

// Take a chunk and run it; false if none is left.
bool Pool::try_chunk(Seat& seat) {
  const bool is_worker = &seat != &seats_[0];
  uint64_t state = state_.load(std::memory_order_acquire);
  do {
    if ((state & kTaken) == 0) return false;
  } while (!state_.compare_exchange_weak(state, state - 1, std::memory_order_acq_rel));
  if (is_worker) seat.hold();
  try {
    kernel_->run(*call_, num_chunks_ - static_cast<int64_t>(state & kTaken), seat.scratch);
  } catch (...) {
    if (!has_failed_.exchange(true)) fault_ = std::current_exception();
  }
  if (--unfinished_.word == 0 && caller_sleeps_) unfinished_.wake(1);
  if (is_worker) seat.release();
  return true;
}

void Pool::await_chunks() {
  for (int spin = 0; spin < kSpinsForChunks; ++spin) {
    if (unfinished_.word.load(std::memory_order_acquire) == 0) return;
    pause();
  }
  Seat& caller = seats_[0];
  caller.release();  // others do not wait for it, but it for them
  for (size_t worker = 1; worker < seats_.size(); ++worker) seats_[worker].begin_watch();
  caller_sleeps_ = true;
  while (const uint32_t unfinished = unfinished_.word) {
    for (size_t worker = 1; pulls_ && worker < seats_.size(); ++worker) seats_[worker].try_pull();
    unfinished_.sleep(unfinished, pulls_ ? kWatchInterval_us : kForever);
  }
  caller_sleeps_ = false;
  caller.hold();
}

void Pool::work(Seat& seat) {
  seat.take();
  do {
    // Two threads on one core compute no more than one: the caller may just have pulled this one to its own.
    do {
      if (pulls_ && in_step_) seat.leave_core_of(seats_[0]);
    } while (try_chunk(seat));
  } while (await_job(seat));
}

// Until there may be a chunk to take; false when the pool ends.
bool Pool::await_job(Seat& seat) {
  for (int spin = 0; spin < (has_core_each_ ? kSpinsForJob : 0); ++spin) {
    if ((state_.load(std::memory_order_acquire) & kTaken) != 0) return true;
    pause();
  }
  const uint32_t seen = wake_.word;
  ++num_sleepers_;
  const bool watches = pulls_ && !is_caller_watched_.exchange(true);
  if (watches) seats_[0].begin_watch();
  while (!stop_ && (state_ & kTaken) == 0 && wake_.word == seen) {
    const bool looks = watches && in_step_;
    if (looks && seats_[0].try_pull())
      seat.leave_core_of(seats_[0]);
    else
      wake_.sleep(seen, looks ? kWatchInterval_us : kForever);
  }
  if (watches) is_caller_watched_ = false;
  --num_sleepers_;
  return !stop_;
}

}  // namespace octavo
