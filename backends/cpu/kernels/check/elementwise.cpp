#include <cmath>
#include <functional>

#include "checks.h"

namespace octavo::check {
namespace {

constexpr double kEps = 1e-5;

struct Rows {
  int64_t rows, dim, padding;
};
constexpr Rows kRows[] = {{1, 1, 0}, {3, 37, 5}, {70, 64, 3}, {5, 577, 0}};

using Numbers = std::vector<double>;

// What a view of rows holds: [rows][dim] out of rows that are `stride` apart.
Numbers view(const Array& array, const Rows& shape, int64_t stride) {
  Numbers numbers;
  for (int64_t row = 0; row < shape.rows; ++row)
    for (int64_t i = 0; i < shape.dim; ++i) numbers.push_back(array.get(row * stride + i));
  return numbers;
}

double mean_of(const double* x, int64_t dim, const std::function<double(double)>& function) {
  double total = 0;
  for (int64_t i = 0; i < dim; ++i) total += function(x[i]);
  return total / static_cast<double>(dim);
}

Numbers normalised(const Numbers& x, const Rows& shape, const Array& weight, const Array* bias, bool centred) {
  Numbers result;
  for (int64_t row = 0; row < shape.rows; ++row) {
    const double* values = x.data() + row * shape.dim;
    const double mean = centred ? mean_of(values, shape.dim, [](double value) { return value; }) : 0.0;
    const double variance =
        mean_of(values, shape.dim, [=](double value) { return (value - mean) * (value - mean); });
    for (int64_t i = 0; i < shape.dim; ++i)
      result.push_back((values[i] - mean) / std::sqrt(variance + kEps) * weight.get(i) +
                       (bias == nullptr ? 0.0 : bias->get(i)));
  }
  return result;
}

double silu(double x) { return x / (1 + std::exp(-x)); }
double gelu_erf(double x) { return 0.5 * x * (1 + std::erf(x * std::sqrt(0.5))); }
double gelu_tanh(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
}

}  // namespace

void check_rows(Machine& machine) {
  constexpr int64_t kTable = 11;
  for (const Element element : kElements)
    for (const Rows& shape : kRows) {
      const int64_t stride = shape.dim + shape.padding;
      Array table = random_array(element, kTable * shape.dim), x = random_array(element, kTable * stride);
      Array out(element, shape.rows * shape.dim);
      std::vector<int32_t> ids;
      Numbers embedded, taken;
      for (int64_t row = 0; row < shape.rows; ++row) {
        ids.push_back(static_cast<int32_t>(generator()() % kTable));
        for (int64_t i = 0; i < shape.dim; ++i) {
          embedded.push_back(table.get(ids.back() * shape.dim + i));
          taken.push_back(x.get(ids.back() * stride + i));
        }
      }
      machine.run("embed", Opcode::embed, element, {table.data(), ids.data(), out.data()},
                  {shape.rows, shape.dim, kTable}, {}, {&out});
      machine.expect("embed", out, embedded, 1e-30);
      machine.run("take_rows", Opcode::take_rows, element, {x.data(), ids.data(), out.data()},
                  {shape.rows, shape.dim, stride, kTable}, {}, {&out});
      machine.expect("take_rows", out, taken, 1e-30);
      Array source = random_array(element, shape.rows * stride);
      machine.run("copy", Opcode::copy, element, {source.data(), out.data()},
                  {shape.rows, 1, shape.dim, stride, 0}, {}, {&out});
      machine.expect("copy", out, view(source, shape, stride), 1e-30);
    }
}

void check_norms(Machine& machine) {
  for (const Element element : kElements)
    for (const Rows& shape : kRows) {
      const int64_t stride = shape.dim + shape.padding;
      Array x = random_array(element, shape.rows * stride), residual = random_array(element, shape.rows * stride);
      Array weight = random_array(element, shape.dim), bias = random_array(element, shape.dim);
      Array out(element, shape.rows * shape.dim), total(element, shape.rows * shape.dim);
      const Numbers values = view(x, shape, stride);
      const std::vector<int64_t> sizes = {shape.rows, 1, shape.dim, stride, 0};
      const double tolerance = tolerance_of(element);
      machine.run("rms_norm", Opcode::rms_norm, element, {x.data(), weight.data(), out.data()}, sizes, {kEps},
                  {&out});
      machine.expect("rms_norm", out, normalised(values, shape, weight, nullptr, false), tolerance);
      for (Array* shift : {static_cast<Array*>(nullptr), &bias}) {
        machine.run("layer_norm", Opcode::layer_norm, element,
                    {x.data(), weight.data(), shift == nullptr ? nullptr : shift->data(), out.data()}, sizes,
                    {kEps}, {&out});
        machine.expect("layer_norm", out, normalised(values, shape, weight, shift, true), tolerance);
      }
      machine.run("add_rms_norm", Opcode::add_rms_norm, element,
                  {x.data(), residual.data(), weight.data(), out.data(), total.data()},
                  {shape.rows, shape.dim, stride, stride}, {kEps}, {&out, &total});
      Numbers sums = view(residual, shape, stride);
      for (size_t i = 0; i < sums.size(); ++i) sums[i] += values[i];
      machine.expect("add_rms_norm", total, sums, tolerance);
      const Numbers rounded = view(total, shape, shape.dim);
      machine.expect("add_rms_norm", out, normalised(rounded, shape, weight, nullptr, false), tolerance);
    }
}

void check_rotation(Machine& machine) {
  constexpr int64_t kTokens = 40, kHeads = 3, kHeadDim = 26, kHalf = 11;
  std::vector<int32_t> positions, lens;
  Array frequencies(Element::f32, kHalf), cos(Element::f32, kTokens * kHalf), sin(Element::f32, kTokens * kHalf);
  for (int64_t i = 0; i < kHalf; ++i) frequencies.set(i, std::pow(1e4, -static_cast<double>(i) / kHalf));
  Numbers cosines, sines;
  for (int32_t token = 0; token < kTokens; ++token) {
    positions.push_back(token * token * 7);
    lens.push_back(positions.back() + 1);
    for (int64_t i = 0; i < kHalf; ++i) {
      cosines.push_back(std::cos(positions.back() * frequencies.get(i)));
      sines.push_back(std::sin(positions.back() * frequencies.get(i)));
    }
  }
  machine.run("rope_table", Opcode::rope_table, Element::f32,
              {positions.data(), lens.data(), frequencies.data(), nullptr, cos.data(), sin.data()},
              {kTokens, kHalf, 0, 4096}, {1, 1e4, 1}, {&cos, &sin});
  machine.expect("rope_table", cos, cosines, 1e-6);
  machine.expect("rope_table", sin, sines, 1e-6);
  for (const Element element : kElements) {
    Array x = random_array(element, kTokens * kHeads * kHeadDim), out(element, kTokens * kHeads * kHeadDim);
    machine.run("rope", Opcode::rope, element, {x.data(), cos.data(), sin.data(), out.data()},
                {kTokens, kHeads, kHeadDim, kHeads * kHeadDim, kHeadDim, kHalf}, {}, {&out});
    Numbers rotated;
    for (int64_t row = 0; row < kTokens * kHeads; ++row)
      for (int64_t i = 0; i < kHeadDim; ++i) {
        const double own = x.get(row * kHeadDim + i);
        if (i >= 2 * kHalf) {
          rotated.push_back(own);
          continue;
        }
        const int64_t angle = row / kHeads * kHalf + i % kHalf;
        const double other = x.get(row * kHeadDim + (i + kHalf) % (2 * kHalf));
        rotated.push_back(own * cos.get(angle) + (i < kHalf ? -other : other) * sin.get(angle));
      }
    machine.expect("rope", out, rotated, tolerance_of(element));
  }
}

void check_activations(Machine& machine) {
  struct Activation {
    const char* name;
    Opcode opcode;
    bool is_gate;
    int64_t tanh;
    std::function<double(double)> function;
  };
  constexpr double kCap = 1.5;
  const Activation activations[] = {
      {"silu_mul", Opcode::silu_mul, true, 0, silu},
      {"gelu_mul", Opcode::gelu_mul, true, 0, gelu_erf},
      {"gelu_mul", Opcode::gelu_mul, true, 1, gelu_tanh},
      {"gelu", Opcode::gelu, false, 0, gelu_erf},
      {"gelu", Opcode::gelu, false, 1, gelu_tanh},
      {"soft_cap", Opcode::soft_cap, false, 0, [](double x) { return kCap * std::tanh(x / kCap); }},
  };
  for (const Element element : kElements)
    for (const Rows& shape : kRows)
      for (const Activation& activation : activations) {
        const int64_t width = activation.is_gate ? 2 * shape.dim : shape.dim, stride = width + shape.padding;
        Array x = random_array(element, shape.rows * stride, 2.0), out(element, shape.rows * shape.dim);
        std::vector<int64_t> sizes = {shape.rows, shape.dim, stride, activation.tanh};
        machine.run(activation.name, activation.opcode, element, {x.data(), out.data()}, sizes, {kCap}, {&out});
        Numbers expected;
        for (int64_t row = 0; row < shape.rows; ++row)
          for (int64_t i = 0; i < shape.dim; ++i) {
            const double up = activation.is_gate ? x.get(row * stride + shape.dim + i) : 1.0;
            expected.push_back(activation.function(x.get(row * stride + i)) * up);
          }
        machine.expect(activation.name, out, expected, tolerance_of(element));
      }
}

void check_arithmetic(Machine& machine) {
  struct Operation {
    const char* name;
    Opcode opcode;
    std::function<double(double, double)> function;
  };
  const Operation operations[] = {
      {"add", Opcode::add, [](double a, double b) { return a + b; }},
      {"subtract", Opcode::subtract, [](double a, double b) { return a - b; }},
      {"multiply", Opcode::multiply, [](double a, double b) { return a * b; }},
  };
  enum class Right { rows, one_row, scalar };
  for (const Element element : kElements)
    for (const Rows& shape : kRows)
      for (const Operation& operation : operations)
        for (const Right right : {Right::rows, Right::one_row, Right::scalar}) {
          const int64_t stride = shape.dim + shape.padding, b_stride = right == Right::rows ? stride : 0;
          Array a = random_array(element, shape.rows * stride), b = random_array(element, shape.rows * stride);
          Array out(element, shape.rows * shape.dim);
          machine.run(operation.name, operation.opcode, element,
                      {a.data(), right == Right::scalar ? nullptr : b.data(), out.data()},
                      {shape.rows, shape.dim, stride, b_stride}, {0.75}, {&out});
          Numbers expected;
          for (int64_t row = 0; row < shape.rows; ++row)
            for (int64_t i = 0; i < shape.dim; ++i)
              expected.push_back(operation.function(
                  a.get(row * stride + i), right == Right::scalar ? 0.75 : b.get(row * b_stride + i)));
          machine.expect(operation.name, out, expected, tolerance_of(element));
        }
}

}  // namespace octavo::check
