#include <cmath>

#include "cache.h"
#include "checks.h"
#include "plan.h"

namespace octavo::check {
namespace {

using Numbers = std::vector<double>;

struct Case {
  Element element, cache;
  int64_t heads = 4, kv_heads = 2, head_dim = 37, block_size = 16, window = 0;
  bool is_causal = true, has_sinks = false;
  double cap = 0;
};

// Every type of activations over every type of cache, and then each feature.
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Element element : kElements)
    for (const Element cache : kCaches) all.push_back({element, cache});
  for (const auto& [element, cache] :
       {std::pair(Element::bf16, Element::bf16), std::pair(Element::bf16, Element::i8),
        std::pair(Element::f32, Element::f32)}) {
    all.push_back({element, cache, 3, 3, 64, 32, 37});                     // no sharing, a window
    all.push_back({element, cache, 8, 1, 40, 16, 300});                    // one head for all
    all.push_back({element, cache, 2, 1, 16, 64, 100, false});             // both ways
    all.push_back({element, cache, 6, 2, 80, 16, 0, true, true});          // sinks
    all.push_back({element, cache, 4, 2, 128, 16, 257, true, true, 2.0});  // and a soft cap
  }
  return all;
}

// Decodes, a few tokens at once, the rest of a prompt and a whole one.
const std::vector<Sequence> kSequences = {{1, 1}, {300, 1}, {523, 3}, {270, 20}, {70, 70}};

class Oracle {
 public:
  Oracle(const Case& test, const StepPlan& plan, const Cache& cache, const Array& queries, const Array& sinks)
      : test_(test), plan_(plan), cache_(cache), queries_(queries), sinks_(sinks) {}

  Numbers output() const {
    Numbers result;
    int64_t token = 0;
    for (size_t seq = 0; seq < kSequences.size(); ++seq) {
      const auto [length, queries] = kSequences[seq];
      for (int64_t position = length - queries; position < length; ++position, ++token)
        for (int64_t head = 0; head < test_.heads; ++head) {
          const Numbers mean = attended(seq, position, token * test_.heads + head, head);
          result.insert(result.end(), mean.begin(), mean.end());
        }
    }
    return result;
  }

 private:
  bool sees(int64_t position, int64_t key) const {
    if (test_.is_causal && key > position) return false;
    return test_.window == 0 || std::abs(key - position) < test_.window;
  }

  double score(int64_t row, int64_t kv_head, int64_t slot) const {
    double sum = 0;
    for (int64_t i = 0; i < test_.head_dim; ++i)
      sum += queries_.get(row * test_.head_dim + i) * cache_.key(slot, kv_head, i);
    sum /= std::sqrt(static_cast<double>(test_.head_dim));
    return test_.cap > 0 ? test_.cap * std::tanh(sum / test_.cap) : sum;
  }

  // Scores are small: nothing overflows without a maximum.
  Numbers attended(size_t seq, int64_t position, int64_t row, int64_t head) const {
    const int64_t kv_head = head / (test_.heads / test_.kv_heads);
    double total = test_.has_sinks ? std::exp(sinks_.get(head)) : 0.0;
    Numbers mean(static_cast<size_t>(test_.head_dim));
    for (int64_t key = 0; key < kSequences[seq].length; ++key) {
      if (!sees(position, key)) continue;
      const int64_t slot = plan_.slot(seq, key);
      const double weight = std::exp(score(row, kv_head, slot));
      total += weight;
      for (int64_t i = 0; i < test_.head_dim; ++i)
        mean[static_cast<size_t>(i)] += weight * cache_.value(slot, kv_head, i);
    }
    for (double& number : mean) number /= total;
    return mean;
  }

  const Case& test_;
  const StepPlan& plan_;
  const Cache& cache_;
  const Array &queries_, &sinks_;
};

Numbers row_of(const Array& array, int64_t row, int64_t dim) {
  Numbers numbers;
  for (int64_t i = 0; i < dim; ++i) numbers.push_back(array.get(row * dim + i));
  return numbers;
}

void fill(Cache& cache, const Case& test, const StepPlan& plan) {
  for (size_t seq = 0; seq < kSequences.size(); ++seq)
    for (int64_t position = 0; position < kSequences[seq].length; ++position)
      for (int64_t head = 0; head < test.kv_heads; ++head) {
        const Array rows = random_array(Element::f32, 2 * test.head_dim);
        cache.set(plan.slot(seq, position), head, row_of(rows, 0, test.head_dim),
                  row_of(rows, 1, test.head_dim));
      }
}

// Weights of 16 bits are rounded before the result is; in float32 every exponential has to be exact.
double tolerance(Element element) { return element == Element::f32 ? 3e-6 : 2 * tolerance_of(element); }

// What the items leave, and what is then joined of it.
Array attention(Machine& machine, const char* name, const Case& test, StepPlan& plan, Cache& cache,
                Array& queries, Array& sinks) {
  const int64_t record = 16 + (test.head_dim + 15) / 16 * 16;
  Array scratch(Element::f32, plan.num_partials() * test.heads * record + 1);
  Array out(test.element, plan.num_tokens() * test.heads * test.head_dim);
  const std::vector<void*> operands = {queries.data(),      cache.keys.data(), cache.values.data(),
                                       cache.scales_data(), plan.data(),       scratch.data(),
                                       test.has_sinks ? sinks.data() : nullptr, out.data()};
  const std::vector<int64_t> sizes = {plan.num_tokens(),           test.heads,     test.kv_heads,
                                      test.head_dim,               test.heads * test.head_dim,
                                      test.head_dim,               test.block_size, test.window,
                                      test.is_causal,              static_cast<int64_t>(test.cache)};
  const std::vector<double> scalars = {1 / std::sqrt(static_cast<double>(test.head_dim)), test.cap};
  machine.run(name, Opcode::attention, test.element, operands, sizes, scalars, {});
  machine.run(name, Opcode::attention_combine, test.element, operands, sizes, scalars, {&out});
  return out;
}

}  // namespace

void check_attention(Machine& machine) {
  for (const Case& test : cases()) {
    const auto numbers = generator();  // both plans get the same blocks
    StepPlan whole(kSequences, test.block_size, false);
    generator() = numbers;
    StepPlan split(kSequences, test.block_size, true);
    Cache cache({test.cache, whole.num_blocks(), test.kv_heads, test.head_dim, test.block_size});
    fill(cache, test, whole);
    Array queries = random_array(test.element, whole.num_tokens() * test.heads * test.head_dim);
    Array sinks = random_array(test.element, test.heads);
    const char* name = test.cache == Element::i8     ? "attention int8"
                       : test.cache == Element::bf16 ? "attention bf16"
                       : test.cache == Element::f16  ? "attention f16"
                                                     : "attention f32";
    const Array out = attention(machine, name, test, whole, cache, queries, sinks);
    machine.expect(name, out, Oracle(test, whole, cache, queries, sinks).output(), tolerance(test.element));
    const Array joined = attention(machine, name, test, split, cache, queries, sinks);
    machine.expect_same(name, joined.bytes() == out.bytes());
  }
}

}  // namespace octavo::check
