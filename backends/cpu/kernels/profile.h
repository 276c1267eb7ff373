// Where the time of a context goes: nanoseconds, calls and bytes of weights by opcode.
#pragma once

#include <chrono>

#include "kernel.h"

namespace octavo {

class Profile {
 public:
  struct Total {
    int64_t nanoseconds, calls, bytes;  // bytes: of the weights that products read
  };

  bool is_on = false;
  Total totals[static_cast<int>(Opcode::count)] = {};

  template <class Function>
  void measure(const Call& call, Function function) {
    const auto start = std::chrono::steady_clock::now();
    function();
    const std::chrono::nanoseconds elapsed = std::chrono::steady_clock::now() - start;
    const Opcode opcode = call.instruction.opcode;
    Total& total = totals[static_cast<int>(opcode)];
    total.nanoseconds += elapsed.count();
    total.calls += 1;
    if (opcode == Opcode::linear) total.bytes += static_cast<int64_t>(call.operand<const Linear>(1)->bytes);
  }
};

}  // namespace octavo
