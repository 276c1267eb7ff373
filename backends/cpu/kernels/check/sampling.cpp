#include <algorithm>
#include <cmath>
#include <cstring>

#include "checks.h"

namespace octavo::check {
namespace {

using Numbers = std::vector<double>;

constexpr int64_t kRows = 24, kPadding = 3;
constexpr double kClose = 1e-4;  // what the kernels' integer weights may be off by

struct Settings {
  double temperature, top_p, min_p, uniform;
  int64_t top_k;
};

double uniform_number() { return static_cast<double>(generator()() >> 8) / (1 << 24); }

Settings random_settings(int64_t vocab) {
  const auto sometimes = [](double setting, double otherwise) {
    return generator()() % 2 ? setting : otherwise;
  };
  const double count = static_cast<double>(generator()() % static_cast<uint64_t>(vocab) + 1);
  return {0.5 + uniform_number(), sometimes(0.1 + 0.8 * uniform_number(), 1.0), sometimes(0.05, 0.0),
          uniform_number(), static_cast<int64_t>(sometimes(std::min(count, 60.0), 0.0))};
}

// Probabilities of what may be drawn, 0 for the rest; empty if a setting cuts where it is not clear.
Numbers candidates(const Numbers& logits, const Settings& settings) {
  Numbers sorted = logits;
  std::sort(sorted.rbegin(), sorted.rend());
  const double kth = settings.top_k > 0 ? sorted[static_cast<size_t>(settings.top_k - 1)] : sorted.back();
  Numbers weights;
  double total = 0;
  for (const double logit : logits) {
    const double weight = std::exp((logit - sorted[0]) / settings.temperature);
    if (settings.min_p > 0 && std::fabs(weight - settings.min_p) < kClose) return {};
    weights.push_back(logit >= kth && weight >= settings.min_p ? weight : 0.0);
    total += weights.back();
  }
  Numbers kept = weights;
  if (settings.top_p == 1) return kept;
  for (double& weight : kept) {
    double heavier = 0;
    for (const double other : weights) heavier += other > weight ? other : 0.0;
    if (std::fabs(heavier / total - settings.top_p) < kClose) return {};
    if (heavier > settings.top_p * total) weight = 0;
  }
  return kept;
}

// How far the number that was drawn with is from the token's part of [0, 1].
double distance(const Numbers& weights, int32_t token, double uniform) {
  const auto place = static_cast<size_t>(token);
  if (token < 0 || place >= weights.size() || weights[place] == 0) return 1;
  double total = 0, before = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    total += weights[i];
    if (i < place) before += weights[i];
  }
  const double after = before + weights[place];
  return std::max({0.0, before / total - uniform, uniform - after / total});
}

Numbers row_of(const Array& logits, int64_t row, int64_t vocab) {
  Numbers numbers;
  for (int64_t i = 0; i < vocab; ++i) numbers.push_back(logits.get(row * (vocab + kPadding) + i));
  return numbers;
}

int32_t int_at(const Array& bytes, int64_t row) {
  int32_t number;
  std::memcpy(&number, bytes.bytes().data() + row * 4, sizeof number);
  return number;
}

// The last row cannot be sampled.
Array random_logits(Element element, int64_t vocab) {
  Array logits = random_array(element, kRows * (vocab + kPadding), 3.0);
  logits.set((kRows - 1) * (vocab + kPadding) + vocab / 2, NAN);
  return logits;
}

void expect_valid(Machine& machine, const char* name, const Array& tokens, const Array& valid) {
  Numbers expected(kRows, 1.0);
  expected.back() = 0;
  machine.expect(name, valid, expected, 1e-30);
  machine.expect_same(name, int_at(tokens, kRows - 1) == 0);
}

void check_draw(Machine& machine, Element element, int64_t vocab) {
  Array logits = random_logits(element, vocab);
  Array temperature(Element::f32, kRows), top_p = temperature, min_p = temperature, uniform = temperature;
  std::vector<int32_t> top_k;
  std::vector<Numbers> weights;
  for (int64_t row = 0; row < kRows; ++row) {
    Settings settings{};
    Numbers kept;
    while (kept.empty()) {
      settings = random_settings(vocab);
      kept = row == kRows - 1 ? Numbers(1) : candidates(row_of(logits, row, vocab), settings);
    }
    weights.push_back(kept);
    temperature.set(row, settings.temperature);
    top_p.set(row, settings.top_p);
    min_p.set(row, settings.min_p);
    uniform.set(row, settings.uniform);
    top_k.push_back(static_cast<int32_t>(settings.top_k));
  }
  Array tokens(Element::i8, 4 * kRows), valid(Element::i8, kRows), distances(Element::f32, kRows - 1);
  machine.run("draw", Opcode::draw, element,
              {logits.data(), temperature.data(), top_k.data(), top_p.data(), min_p.data(), uniform.data(),
               tokens.data(), valid.data()},
              {kRows, vocab, vocab + kPadding}, {}, {&tokens, &valid});
  for (int64_t row = 0; row < kRows - 1; ++row)
    distances.set(row, distance(weights[static_cast<size_t>(row)], int_at(tokens, row), uniform.get(row)));
  machine.expect("draw", distances, Numbers(kRows - 1), kClose);
  expect_valid(machine, "draw valid", tokens, valid);
}

void check_largest(Machine& machine, Element element, int64_t vocab) {
  Array logits = random_logits(element, vocab), tokens(Element::i8, 4 * kRows), valid(Element::i8, kRows);
  machine.run("argmax", Opcode::argmax, element, {logits.data(), tokens.data(), valid.data()},
              {kRows, vocab, vocab + kPadding}, {}, {&tokens, &valid});
  Array chosen(Element::f32, kRows - 1);
  Numbers expected;
  for (int64_t row = 0; row < kRows - 1; ++row) {
    const Numbers numbers = row_of(logits, row, vocab);
    const auto largest = std::max_element(numbers.begin(), numbers.end());
    expected.push_back(static_cast<double>(largest - numbers.begin()));
    chosen.set(row, int_at(tokens, row));
  }
  machine.expect("argmax", chosen, expected, 1e-30);  // the first of equal ones
  expect_valid(machine, "argmax valid", tokens, valid);
}

}  // namespace

void check_sampling(Machine& machine) {
  for (const Element element : kElements)
    for (const int64_t vocab : {1, 7, 129, 1000}) {
      check_largest(machine, element, vocab);
      check_draw(machine, element, vocab);
    }
}

}  // namespace octavo::check
