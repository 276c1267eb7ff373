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
constexpr int kSpinsForJob = 2000;    // the time that ops too small to share take, and more
constexpr int kSpinsForChunks = 500;  // then the thread that has the chunk was probably interrupted
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

Pool::Pool(int num_threads) : scratches_(static_cast<size_t>(std::max(1, num_threads))) {
  // With more threads than cores a spinning one holds up those that have a chunk: then nobody spins,
  // and no more are woken than can run.
  const int num_cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  spins_for_job_ = num_threads <= num_cores ? kSpinsForJob : 0;
  most_helpers_ = std::max(1, num_cores - 1);
  try {
    for (size_t worker = 1; worker < scratches_.size(); ++worker)
      workers_.emplace_back([this, worker] { work(worker); });
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

void Pool::run(const Kernel& kernel, const Call& call) {
  const int64_t num_chunks = kernel.num_chunks(call);
  if (num_chunks <= 1 || workers_.empty()) {
    for (int64_t chunk = 0; chunk < num_chunks; ++chunk) kernel.run(call, chunk, scratches_[0]);
    return;
  }
  kernel_ = &kernel;
  call_ = &call;
  share(num_chunks);
  while (try_chunk(scratches_[0])) {
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
bool Pool::try_chunk(Scratch& scratch) {
  uint64_t state = state_.load(std::memory_order_acquire);
  do {
    if ((state & kTaken) == 0) return false;
  } while (!state_.compare_exchange_weak(state, state - 1, std::memory_order_acq_rel));
  try {
    kernel_->run(*call_, num_chunks_ - static_cast<int64_t>(state & kTaken), scratch);
  } catch (...) {
    if (!has_failed_.exchange(true)) fault_ = std::current_exception();
  }
  if (--unfinished_.word == 0 && caller_sleeps_) unfinished_.wake(1);
  return true;
}

void Pool::await_chunks() {
  for (int spin = 0; spin < kSpinsForChunks; ++spin) {
    if (unfinished_.word.load(std::memory_order_acquire) == 0) return;
    pause();
  }
  caller_sleeps_ = true;
  while (const uint32_t unfinished = unfinished_.word) unfinished_.sleep(unfinished);
  caller_sleeps_ = false;
}

void Pool::work(size_t worker) {
  do {
    while (try_chunk(scratches_[worker])) {
    }
  } while (await_job());
}

// Until there may be a chunk to take; false when the pool ends.
bool Pool::await_job() {
  for (int spin = 0; spin < spins_for_job_; ++spin) {
    if ((state_.load(std::memory_order_acquire) & kTaken) != 0) return true;
    pause();
  }
  const uint32_t seen = wake_.word;
  ++num_sleepers_;
  while (!stop_ && (state_ & kTaken) == 0 && wake_.word == seen) wake_.sleep(seen);
  --num_sleepers_;
  return !stop_;
}

}  // namespace octavo
