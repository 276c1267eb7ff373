// Memory for weights: huge pages where the system gives them, spread over the memory's nodes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace octavo {

// Zeroed or not, aligned to a page; nullptr where there is none. `release` takes the same size.
void* allocate(size_t bytes);
void release(void* memory, size_t bytes);

// Large pieces of memory are spread over these nodes from here on; over none: they lie where they are
// first written. False where the system refuses it, or the user has chosen a policy himself (numactl);
// then nothing is spread.
bool spread_over(const int32_t* nodes, int num_nodes);

// Have the pages of this memory that nobody has touched yet spread. Never fails: memory that is not
// spread is slower, no more.
void spread(void* memory, size_t bytes);

}  // namespace octavo
