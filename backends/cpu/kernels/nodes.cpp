// Which node of the machine's memory a page lies on.
//
// Left alone, a page lies on the node of the thread that writes it first; weights are packed by one
// thread, so that all of them would be on one node, and every step would read at the rate of that one's
// channels. Chunks go to whichever thread is free, so there is no node that reads a given page most: pages
// are therefore dealt out in turn. All channels are read at once then, and no thread is better off than
// another; of n nodes, n - 1 out of n reads cross between them. (llama.cpp's --numa distribute spreads the
// threads and leaves pages to first touch. vLLM binds a process with a share of the weights to each node,
// which saves the crossing; one process of Octavo's for each node, with numactl, is that for several models
// or replicas.) Keys and values are read in the same way, so the same holds for caches. Huge pages are
// dealt out whole: a weight of few megabytes may come to lie on one node.
//
// Two of Linux's system calls, by number: libnuma would be a dependency for their sake.
#include "memory.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <mutex>

namespace octavo {

#if defined(__linux__) && defined(SYS_mbind) && defined(SYS_get_mempolicy)

namespace {

constexpr int kMaxNodes = 1024;  // the most that Linux can be built for
constexpr int kWordBits = 8 * sizeof(unsigned long);
constexpr size_t kLarge = 64 << 10;  // below, a piece is not worth the call
// linux/mempolicy.h, which not every system has where it compiles.
constexpr int kDefaultPolicy = 0;
constexpr unsigned long kInterleave = 3;

struct Nodes {
  unsigned long bits[kMaxNodes / kWordBits] = {};
  bool is_empty = true;
};

std::mutex mutex;
Nodes chosen;  // guarded by it

Nodes chosen_nodes() {
  const std::lock_guard<std::mutex> lock(mutex);
  return chosen;
}

void choose(const Nodes& nodes) {
  const std::lock_guard<std::mutex> lock(mutex);
  chosen = nodes;
}

bool interleave(uintptr_t begin, size_t bytes, const Nodes& nodes) {
  // The kernel counts one bit less than it is told.
  return syscall(SYS_mbind, begin, bytes, kInterleave, nodes.bits, kMaxNodes + 1UL, 0U) == 0;
}

bool has_policy() {
  int policy = kDefaultPolicy;
  return syscall(SYS_get_mempolicy, &policy, nullptr, 0UL, nullptr, 0UL) == 0 && policy != kDefaultPolicy;
}

// Containers forbid it, often.
bool may_interleave(const Nodes& nodes) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* memory = mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  const bool may = interleave(reinterpret_cast<uintptr_t>(memory), page, nodes);
  munmap(memory, page);
  return may;
}

}  // namespace

bool spread_over(const int32_t* numbers, int num_nodes) {
  Nodes nodes;
  for (int i = 0; i < num_nodes; ++i) {
    if (numbers[i] < 0 || numbers[i] >= kMaxNodes) continue;
    nodes.bits[numbers[i] / kWordBits] |= 1UL << numbers[i] % kWordBits;
    nodes.is_empty = false;
  }
  const bool is_possible = !nodes.is_empty && !has_policy() && may_interleave(nodes);
  choose(is_possible ? nodes : Nodes{});
  return is_possible;
}

void spread(void* memory, size_t bytes) {
  const Nodes nodes = chosen_nodes();
  if (nodes.is_empty || bytes < kLarge) return;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(memory) + page - 1) / page * page;
  const auto end = (reinterpret_cast<uintptr_t>(memory) + bytes) / page * page;
  if (begin < end) interleave(begin, end - begin, nodes);
}

#else

bool spread_over(const int32_t*, int) { return false; }
void spread(void*, size_t) {}

#endif

}  // namespace octavo
