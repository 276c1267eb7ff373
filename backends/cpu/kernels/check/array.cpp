#include "array.h"

#include <cmath>
#include <cstring>

namespace octavo::check {
namespace {

int64_t bytes_of(Element element) {
  switch (element) {
    case Element::f32: return 4;
    case Element::bf16:
    case Element::f16: return 2;
    case Element::i8: return 1;
  }
  return 0;
}

uint16_t bfloat16_of(double value) {
  const float single = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &single, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

double from_bfloat16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float single;
  std::memcpy(&single, &wide, sizeof single);
  return single;
}

}  // namespace

uint16_t half_of(double value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(value);
  if (!std::isfinite(value)) return static_cast<uint16_t>(sign | 0x7c00 | (std::isnan(value) ? 0x200 : 0));
  if (magnitude == 0) return sign;
  const int exponent = std::max(-14, std::ilogb(magnitude));
  const double mantissa = std::nearbyint(std::ldexp(magnitude, 10 - exponent));  // 1024 to 2048
  // A mantissa that rounds up to 2048 carries into the exponent by itself; below 1024 is subnormal.
  const int bits = (exponent + 14) * 1024 + static_cast<int>(mantissa);
  return static_cast<uint16_t>(sign | (bits < 0x7c00 ? bits : 0x7c00));
}

double from_half(uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

Array::Array(Element element, int64_t count)
    : element_(element), count_(count), bytes_(static_cast<size_t>(count * bytes_of(element))) {}

double Array::get(int64_t index) const {
  const uint8_t* place = bytes_.data() + index * bytes_of(element_);
  if (element_ == Element::f32) {
    float single;
    std::memcpy(&single, place, sizeof single);
    return single;
  }
  if (element_ == Element::i8) return static_cast<int8_t>(*place);
  uint16_t bits;
  std::memcpy(&bits, place, sizeof bits);
  return element_ == Element::bf16 ? from_bfloat16(bits) : from_half(bits);
}

void Array::set(int64_t index, double value) {
  uint8_t* place = bytes_.data() + index * bytes_of(element_);
  if (element_ == Element::f32) {
    const float single = static_cast<float>(value);
    std::memcpy(place, &single, sizeof single);
  } else if (element_ == Element::i8) {
    *place = static_cast<uint8_t>(static_cast<int8_t>(value));
  } else {
    const uint16_t bits = element_ == Element::bf16 ? bfloat16_of(value) : half_of(value);
    std::memcpy(place, &bits, sizeof bits);
  }
}

std::mt19937& generator() {
  static std::mt19937 numbers(1);
  return numbers;
}

Array random_array(Element element, int64_t count, double scale) {
  std::normal_distribution<double> normal(0.0, scale);
  Array array(element, count);
  for (int64_t i = 0; i < count; ++i) array.set(i, normal(generator()));
  return array;
}

}  // namespace octavo::check
