// Memory for weights: huge pages where the system gives them, spread over the memory's nodes.
#pragma once

#include <cstddef>

namespace octavo {

// Zeroed or not, aligned to a page; nullptr where there is none. `release` takes the same size.
void* allocate(size_t bytes);
void release(void* memory, size_t bytes);

}  // namespace octavo
