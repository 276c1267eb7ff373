#include "pool.h"

#include <cstdlib>
#include <new>

namespace octavo {

Scratch::~Scratch() { std::free(memory_); }

void* Scratch::reserve(size_t bytes) {
  if (bytes > bytes_) {
    std::free(memory_);
    bytes_ = (bytes + 4095) / 4096 * 4096;
    memory_ = std::aligned_alloc(64, bytes_);
    if (memory_ == nullptr) throw std::bad_alloc();
  }
  return memory_;
}

Pool::Pool(int num_threads) : scratches_(static_cast<size_t>(num_threads)) {
  for (int worker = 1; worker < num_threads; ++worker) workers_.emplace_back([this, worker] { work(worker); });
}

Pool::~Pool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void Pool::run(const Kernel& kernel, const Call& call) {
  num_chunks_ = kernel.num_chunks(call);
  if (num_chunks_ <= 1 || workers_.empty()) {
    for (int64_t chunk = 0; chunk < num_chunks_; ++chunk) kernel.run(call, chunk, scratches_[0]);
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    kernel_ = &kernel;
    call_ = &call;
    next_ = 0;
    busy_ = static_cast<int>(workers_.size());
    ++job_;
  }
  wake_.notify_all();
  take_chunks(scratches_[0]);
  std::unique_lock<std::mutex> lock(mutex_);
  done_.wait(lock, [this] { return busy_ == 0; });
}

void Pool::take_chunks(Scratch& scratch) {
  for (int64_t chunk = next_++; chunk < num_chunks_; chunk = next_++) kernel_->run(*call_, chunk, scratch);
}

void Pool::work(int worker) {
  uint64_t seen = 0;
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stop_ || job_ != seen; });
    if (stop_) return;
    seen = job_;
    lock.unlock();
    take_chunks(scratches_[static_cast<size_t>(worker)]);
    lock.lock();
    if (--busy_ == 0) done_.notify_one();
  }
}

}  // namespace octavo
