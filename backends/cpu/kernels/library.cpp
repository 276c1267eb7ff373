// What Python calls (octavo_cpu/native/library.py). Plain C, so that one build serves every Python.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>

#include "kernel.h"
#include "memory.h"
#include "pool.h"
#include "profile.h"

using namespace octavo;

namespace {

// One device: its threads and the instruction set it computes with.
struct Context {
  Context(int num_threads, const Variant& variant) : pool(num_threads), variant(variant) {}

  void run(const Call& call) {
    const Kernel& kernel = *variant.kernels[static_cast<int>(call.instruction.opcode)];
    if (profile.is_on)
      profile.measure(call, [&] { pool.run(kernel, call); });
    else
      pool.run(kernel, call);
  }

  // What is being thrown, in words. The thread that threw it may have been any.
  void keep_fault() {
    try {
      throw;
    } catch (const std::bad_alloc&) {
      set_fault("out of memory");
    } catch (const std::exception& error) {
      set_fault(error.what());
    } catch (...) {
      set_fault("something was thrown that is no std::exception");
    }
  }
  void set_fault(const char* text) { std::snprintf(fault, sizeof fault, "%s", text); }

  Pool pool;
  const Variant& variant;
  Profile profile;
  char fault[256] = "";  // of the last instruction that failed
};

const Variant* find_variant(const char* name) {
  for (int i = 0; i < kNumVariants; ++i) {
    const Variant& variant = *kVariants[i];
    if (variant.is_supported() && (*name == '\0' || std::strcmp(name, variant.name) == 0)) return &variant;
  }
  return nullptr;
}

}  // namespace

#if defined(_WIN32)
#define OCTAVO_API extern "C" __declspec(dllexport)
#else
#define OCTAVO_API extern "C" __attribute__((visibility("default")))
#endif

// Counts the changes of abi.h and of this file, so that a stale library is refused.
OCTAVO_API int octavo_abi_version() { return 4; }

// The names of the variants this processor can run, best first, separated by spaces.
OCTAVO_API int octavo_variants(char* text, int capacity) {
  int length = 0;
  for (int i = 0; i < kNumVariants; ++i) {
    if (!kVariants[i]->is_supported()) continue;
    const int needed = static_cast<int>(std::strlen(kVariants[i]->name)) + 1;
    if (length + needed > capacity) return -1;
    std::memcpy(text + length, kVariants[i]->name, static_cast<size_t>(needed - 1));
    text[length + needed - 1] = ' ';
    length += needed;
  }
  if (length > 0) text[--length] = '\0';
  return length;
}

// Spread weights, and what octavo_spread is told, over these nodes of the memory: 1, or 0 where that is not
// possible. For the whole process.
OCTAVO_API int octavo_spread_over(const int32_t* nodes, int num_nodes) { return spread_over(nodes, num_nodes); }
// Memory that nobody has touched yet.
OCTAVO_API void octavo_spread(void* memory, int64_t bytes) { spread(memory, static_cast<size_t>(bytes)); }

// `variant` "" means the best; nullptr comes back for one that is not there, and where the system
// gives no more threads.
OCTAVO_API void* octavo_context_new(int num_threads, const char* variant) {
  const Variant* found = find_variant(variant);
  if (found == nullptr) return nullptr;
  try {
    return new Context(num_threads, *found);
  } catch (const std::exception&) {
    return nullptr;
  }
}
OCTAVO_API void octavo_context_free(void* context) { delete static_cast<Context*>(context); }

// 0, or 1 + the index of the instruction that failed; octavo_fault says why.
OCTAVO_API int64_t octavo_run(void* context, const Instruction* instructions, int64_t count,
                              void* const* pointers) {
  auto& device = *static_cast<Context*>(context);
  const Pool::Step step(device.pool);
  for (int64_t i = 0; i < count; ++i) {
    const Call call{instructions[i], pointers, device.pool.num_threads()};
    try {
      device.run(call);
    } catch (...) {
      device.keep_fault();
      return i + 1;
    }
  }
  return 0;
}
// Valid until the context runs something else.
OCTAVO_API const char* octavo_fault(const void* context) {
  return static_cast<const Context*>(context)->fault;
}

// Start counting from zero, or stop.
OCTAVO_API void octavo_profile(void* context, int is_on) {
  Profile& profile = static_cast<Context*>(context)->profile;
  if (is_on != 0) profile = Profile{};
  profile.is_on = is_on != 0;
}
// Nanoseconds, calls and bytes of weights of every opcode: i64[num_opcodes, 3].
OCTAVO_API void octavo_profile_read(void* context, int64_t* totals, int64_t num_opcodes) {
  const Profile& profile = static_cast<Context*>(context)->profile;
  const int64_t known = static_cast<int64_t>(Opcode::count);
  std::memcpy(totals, profile.totals, sizeof(Profile::Total) * static_cast<size_t>(std::min(known, num_opcodes)));
}

// Pack a weight; nullptr if there is no memory. `bias` is f32[out_features] or nullptr.
OCTAVO_API void* octavo_linear_new(void* context, int scheme, const void* rows, int64_t row_bytes,
                                   int64_t out_features, int64_t in_features, const float* bias) {
  const Variant& variant = static_cast<Context*>(context)->variant;
  auto* linear = new (std::nothrow) Linear{};
  if (linear == nullptr) return nullptr;
  linear->scheme = static_cast<Scheme>(scheme);
  linear->out_features = out_features;
  linear->in_features = in_features;
  if (variant.pack_linear(*linear, rows, row_bytes)) {
    if (bias == nullptr) return linear;
    const int64_t padded = (out_features + linear->panel - 1) / linear->panel * linear->panel;
    linear->bias = static_cast<float*>(allocate(static_cast<size_t>(padded) * sizeof(float)));
    if (linear->bias != nullptr) {
      std::memset(linear->bias, 0, static_cast<size_t>(padded) * sizeof(float));
      std::memcpy(linear->bias, bias, static_cast<size_t>(out_features) * sizeof(float));
      return linear;
    }
    release(linear->data, linear->bytes);
  }
  delete linear;
  return nullptr;
}
OCTAVO_API int64_t octavo_linear_bytes(const void* linear) {
  return static_cast<int64_t>(static_cast<const Linear*>(linear)->bytes);
}
OCTAVO_API void octavo_linear_free(void* handle) {
  auto* linear = static_cast<Linear*>(handle);
  release(linear->data, linear->bytes);
  if (linear->bias != nullptr)
    release(linear->bias, static_cast<size_t>((linear->out_features + linear->panel - 1) / linear->panel *
                                              linear->panel) * sizeof(float));
  delete linear;
}
