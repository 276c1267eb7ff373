#include <cmath>
#include <cstring>

#include "checks.h"

namespace octavo::check {
namespace {

// 7 rows at once, and each of them alone: the same to the bit.
void check_product(Machine& machine, const char* name, Element element, const Weight& weight,
                   const std::vector<double>& weights, const std::vector<float>* bias, int64_t out_features,
                   int64_t in_features, double tolerance) {
  constexpr int64_t kRows = 7;
  const int64_t stride = in_features + 3;
  Array x = random_array(element, kRows * stride, 1.0 / std::sqrt(static_cast<double>(in_features)));
  Array out(element, kRows * out_features);
  machine.run(name, Opcode::linear, element, {x.data(), weight.handle(), out.data()},
              {kRows, stride, in_features, out_features}, {}, {&out});
  std::vector<double> expected;
  for (int64_t row = 0; row < kRows; ++row)
    for (int64_t column = 0; column < out_features; ++column) {
      double sum = bias == nullptr ? 0.0 : (*bias)[static_cast<size_t>(column)];
      for (int64_t k = 0; k < in_features; ++k)
        sum += x.get(row * stride + k) * weights[static_cast<size_t>(column * in_features + k)];
      expected.push_back(sum);
    }
  machine.expect(name, out, expected, tolerance);
  const size_t row_bytes = out.bytes().size() / kRows, x_bytes = x.bytes().size() / kRows;
  for (int64_t row = 0; row < kRows; ++row) {
    Array alone(element, out_features);
    machine.run(name, Opcode::linear, element,
                {static_cast<uint8_t*>(x.data()) + static_cast<size_t>(row) * x_bytes, weight.handle(), alone.data()},
                {1, stride, in_features, out_features}, {}, {&alone});
    machine.expect_same(name, std::memcmp(alone.data(), out.bytes().data() + static_cast<size_t>(row) * row_bytes,
                                          row_bytes) == 0);
  }
}

// ---- GGUF's blocks, one weight at a time ----

using Block = const uint8_t*;

double half_at(Block block, int byte) {
  return from_half(static_cast<uint16_t>(block[byte] | block[byte + 1] << 8));
}
int nibble(Block codes, int i) { return i < 16 ? codes[i] & 15 : codes[i - 16] >> 4; }

double q4_0(Block block, int i) { return half_at(block, 0) * (nibble(block + 2, i) - 8); }
double q4_1(Block block, int i) { return half_at(block, 0) * nibble(block + 4, i) + half_at(block, 2); }
double q8_0(Block block, int i) { return half_at(block, 0) * static_cast<int8_t>(block[2 + i]); }

// Eight groups of 32; scales and minima of 6 bits in 12 bytes.
double q4_k(Block block, int i) {
  const int group = i / 32;
  Block packed = block + 4;
  int scale = packed[group % 4] & 63, minimum = packed[group % 4 + 4] & 63;
  if (group >= 4) {
    scale = (packed[group + 4] & 15) | packed[group - 4] >> 6 << 4;
    minimum = packed[group + 4] >> 4 | packed[group] >> 6 << 4;
  }
  const int byte = block[16 + i / 64 * 32 + i % 32], code = group % 2 == 0 ? byte & 15 : byte >> 4;
  return half_at(block, 0) * scale * code - half_at(block, 2) * minimum;
}

// 16 groups of 16; 4 bits of a code in one place and 2 in another.
double q6_k(Block block, int i) {
  const int half = i / 128, within = i % 128, quarter = within / 32, lane = within % 32;
  const int low = block[half * 64 + quarter % 2 * 32 + lane], high = block[128 + half * 32 + lane];
  const int code = (quarter < 2 ? low & 15 : low >> 4) | (high >> (2 * quarter) & 3) << 4;
  return half_at(block, 208) * static_cast<int8_t>(block[192 + i / 16]) * (code - 32);
}

struct Format {
  const char* name;
  Scheme scheme;
  int weights, bytes;
  std::vector<int> halves;  // where its scales of 16 bits stand
  double (*weight)(Block, int);
};

}  // namespace

void check_dense_products(Machine& machine) {
  struct Kept {
    const char* name;
    Scheme scheme;
    Element element;
  };
  const Kept kept[] = {{"linear f32", Scheme::f32, Element::f32},
                       {"linear bf16", Scheme::bf16, Element::bf16},
                       {"linear f16", Scheme::f16, Element::f16}};
  struct Shape {
    int64_t out_features, in_features;
  };
  for (const Kept& weight_type : kept)
    for (const Element element : kElements)
      for (const Shape shape : {Shape{1, 1}, Shape{70, 33}, Shape{200, 640}})
        for (const bool has_bias : {false, true}) {
          const int64_t count = shape.out_features * shape.in_features;
          Array rows = random_array(weight_type.element, count);
          std::vector<double> weights;
          for (int64_t i = 0; i < count; ++i) weights.push_back(rows.get(i));
          std::vector<float> bias(static_cast<size_t>(shape.out_features), 0.25f);
          const int64_t row_bytes = static_cast<int64_t>(rows.bytes().size()) / shape.out_features;
          const Weight weight(machine.context(), weight_type.scheme, rows.data(), row_bytes, shape.out_features,
                              shape.in_features, has_bias ? bias.data() : nullptr);
          // Activations may be rounded to the weight's type.
          const double tolerance = std::max(tolerance_of(element), tolerance_of(weight_type.element));
          check_product(machine, weight_type.name, element, weight, weights, has_bias ? &bias : nullptr,
                        shape.out_features, shape.in_features, tolerance);
        }
}

void check_packed_products(Machine& machine) {
  const Format formats[] = {{"linear q4_0", Scheme::q4_0, 32, 18, {0}, q4_0},
                            {"linear q4_1", Scheme::q4_1, 32, 20, {0, 2}, q4_1},
                            {"linear q8_0", Scheme::q8_0, 32, 34, {0}, q8_0},
                            {"linear q4_k", Scheme::q4_k, 256, 144, {0, 2}, q4_k},
                            {"linear q6_k", Scheme::q6_k, 256, 210, {208}, q6_k}};
  constexpr int64_t kOut = 70, kIn = 512;
  for (const Format& format : formats) {
    const int64_t blocks = kOut * kIn / format.weights;
    std::vector<uint8_t> rows;
    for (int64_t i = 0; i < blocks * format.bytes; ++i) rows.push_back(static_cast<uint8_t>(generator()()));
    std::vector<double> weights;
    double squares = 0;
    const auto set_scales = [&](double factor) {
      weights.clear();
      for (int64_t block = 0; block < blocks; ++block) {
        uint8_t* bytes = rows.data() + block * format.bytes;
        for (const int half : format.halves) {
          const uint16_t bits = half_of(factor * static_cast<double>(1 + block % 7));
          bytes[half] = static_cast<uint8_t>(bits);
          bytes[half + 1] = static_cast<uint8_t>(bits >> 8);
        }
        for (int i = 0; i < format.weights; ++i) weights.push_back(format.weight(bytes, i));
      }
    };
    set_scales(1.0);
    for (const double weight : weights) squares += weight * weight;
    set_scales(1.0 / std::sqrt(squares / static_cast<double>(weights.size())));  // weights of about 1
    const Weight weight(machine.context(), format.scheme, rows.data(), kIn / format.weights * format.bytes, kOut,
                        kIn, nullptr);
    for (const Element element : kElements) {
      const double tolerance = std::max(tolerance_of(element), tolerance_of(Element::bf16));
      check_product(machine, format.name, element, weight, weights, nullptr, kOut, kIn, tolerance);
    }
  }
}

}  // namespace octavo::check
