// One instruction set, on one, two and four threads, and what came of its checks.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "array.h"

namespace octavo::check {

// A weight that the library has packed.
class Weight {
 public:
  Weight(void* context, Scheme scheme, const void* rows, int64_t row_bytes, int64_t out_features,
         int64_t in_features, const float* bias);
  ~Weight();
  Weight(const Weight&) = delete;
  Weight& operator=(const Weight&) = delete;
  void* handle() const { return handle_; }

 private:
  void* handle_;
};

class Machine {
 public:
  explicit Machine(std::string variant);
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  // Run one instruction with every number of threads: the outputs must be the same to the bit.
  // A missing operand is nullptr.
  void run(const char* name, Opcode opcode, Element element, const std::vector<void*>& operands,
           const std::vector<int64_t>& sizes, const std::vector<double>& scalars,
           const std::vector<Array*>& outputs);

  // Compare with the oracle: no number may be off by more than tolerance * max(1, |expected|).
  void expect(const char* name, const Array& got, const std::vector<double>& expected, double tolerance);
  void expect_same(const char* name, bool is_same);

  void* context() const { return contexts_.front(); }
  bool report() const;  // a line for each name; true if all is well

 private:
  struct Finding {
    double error = 0, tolerance = 0, ratio = -1;
    int64_t differing = 0;
  };
  std::string variant_;
  std::vector<void*> contexts_;
  std::map<std::string, Finding> findings_;
};

std::vector<std::string> variants();
double tolerance_of(Element element);  // for results that are rounded to it once

}  // namespace octavo::check
