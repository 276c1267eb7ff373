#include "memory.h"

#include <cstdlib>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace octavo {

#if defined(__linux__)

void* allocate(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  madvise(memory, bytes, MADV_HUGEPAGE);
  spread(memory, bytes);
  return memory;
}

void release(void* memory, size_t bytes) {
  if (memory != nullptr) munmap(memory, bytes);
}

#else

void* allocate(size_t bytes) {
  return std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
}

void release(void* memory, size_t) { std::free(memory); }

#endif

}  // namespace octavo
