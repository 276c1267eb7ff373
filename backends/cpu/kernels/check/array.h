// Arrays of any element type, read and written one number at a time: slow, and right on any machine.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "../abi.h"

namespace octavo::check {

class Array {
 public:
  Array(Element element, int64_t count);
  double get(int64_t index) const;
  void set(int64_t index, double value);  // rounds to the nearest, ties to even
  int64_t count() const { return count_; }
  void* data() { return bytes_.data(); }
  const std::vector<uint8_t>& bytes() const { return bytes_; }

 private:
  Element element_;
  int64_t count_;
  std::vector<uint8_t> bytes_;
};

uint16_t half_of(double value);  // IEEE binary16
double from_half(uint16_t bits);

// Normal numbers times `scale`, rounded; the same ones at every call.
Array random_array(Element element, int64_t count, double scale = 1.0);
std::mt19937& generator();

}  // namespace octavo::check
