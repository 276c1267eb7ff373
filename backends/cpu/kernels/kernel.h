// What a kernel is: a way to cut an instruction into chunks, and to run one of them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "abi.h"

namespace octavo {

// An instruction with its operands resolved.
struct Call {
  const Instruction& instruction;
  void* const* pointers;  // the program's table
  int num_threads;

  template <class T>
  T* operand(int index) const {
    const int32_t slot = instruction.operands[index];
    return slot < 0 ? nullptr : static_cast<T*>(pointers[slot]);
  }
  int64_t size(int index) const { return instruction.sizes[index]; }
  float scalar(int index) const { return instruction.scalars[index]; }
};

// Memory of one thread, kept from call to call and grown as asked; 64-byte aligned.
class Scratch {
 public:
  ~Scratch();
  void* reserve(size_t bytes);
  template <class T>
  T* array(size_t count) {
    return static_cast<T*>(reserve(count * sizeof(T)));
  }

 private:
  void* memory_ = nullptr;
  size_t bytes_ = 0;
};

// Chunks run in any order on any thread. What a chunk computes for one token must not depend on how
// many chunks, threads or other tokens there are: the backend claims results equal to the bit.
struct Kernel {
  int64_t (*num_chunks)(const Call&);  // 1: too small to share, 0: nothing to do
  void (*run)(const Call&, int64_t chunk, Scratch&);
};

// A weight in the layout of one instruction set; made by Variant::pack_linear.
struct Linear {
  Scheme scheme;
  int64_t out_features, in_features;
  size_t bytes;        // of `data`, which is what a product reads
  void* data;          // huge pages where the system gives them
  float* bias;         // f32[out_features rounded up to the panel], or nullptr
  int64_t panel;       // columns that lie side by side
};

// The kernels of one instruction set.
struct Variant {
  const char* name;
  bool (*is_supported)();
  const Kernel* kernels[static_cast<int>(Opcode::count)];
  // rows: out_features rows of in_features weights (or GGUF blocks), row_bytes apart. False: no memory.
  bool (*pack_linear)(Linear&, const void* rows, int64_t row_bytes);
};

// Every variant built into this library, the best first.
extern const Variant* const kVariants[];
extern const int kNumVariants;

}  // namespace octavo
