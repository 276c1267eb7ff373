#include <cmath>

#include "cache.h"
#include "checks.h"
#include "plan.h"

namespace octavo::check {
namespace {

using Numbers = std::vector<double>;

constexpr int64_t kHeads = 3, kBlockSize = 16;
const std::vector<Sequence> kSequences = {{40, 23}, {17, 1}, {33, 33}};

Numbers all_of(const Array& array) {
  Numbers numbers;
  for (int64_t i = 0; i < array.count(); ++i) numbers.push_back(array.get(i));
  return numbers;
}

// How far, in codes, what a cache gives back is from what was stored.
void append_distances(const Cache& cache, int64_t slot, int64_t head, const Numbers& key,
                      const Numbers& value, Numbers& distances) {
  for (size_t i = 0; i < key.size(); ++i) {
    const auto feature = static_cast<int64_t>(i);
    distances.push_back((cache.key(slot, head, feature) - key[i]) / cache.scale(slot, head, false));
    distances.push_back((cache.value(slot, head, feature) - value[i]) / cache.scale(slot, head, true));
  }
}

void check_cache(Machine& machine, Element element, Element kept, int64_t dim) {
  StepPlan plan(kSequences, kBlockSize, false);
  Cache written({kept, plan.num_blocks(), kHeads, dim, kBlockSize}), expected = written;
  const int64_t stride = 2 * kHeads * dim + 5;  // k and v side by side, and something else
  Array x = random_array(element, plan.num_tokens() * stride);
  const size_t element_bytes = x.bytes().size() / static_cast<size_t>(x.count());
  uint8_t* v = static_cast<uint8_t*>(x.data()) + element_bytes * static_cast<size_t>(kHeads * dim);
  machine.run("write_kv", Opcode::write_kv, element,
              {x.data(), v, written.keys.data(), written.values.data(), written.scales_data(), plan.data()},
              {plan.num_tokens(), kHeads, dim, stride, dim, stride, dim, kBlockSize,
               static_cast<int64_t>(kept)},
              {}, {&written.keys, &written.values, &written.scales});
  Numbers distances;
  for (int64_t token = 0; token < plan.num_tokens(); ++token)
    for (int64_t head = 0; head < kHeads; ++head) {
      const int64_t slot = plan.slot_of(token);
      Numbers key, value;
      for (int64_t i = 0; i < dim; ++i) {
        key.push_back(x.get(token * stride + head * dim + i));
        value.push_back(x.get(token * stride + (kHeads + head) * dim + i));
      }
      expected.set(slot, head, key, value);
      if (kept == Element::i8) append_distances(written, slot, head, key, value, distances);
    }
  // What lies between two codes may become either, if it is as near; nothing else is written to.
  const double tolerance = kept == Element::i8 ? 1.0 : 1e-30;
  machine.expect("write_kv", written.keys, all_of(expected.keys), tolerance);
  machine.expect("write_kv", written.values, all_of(expected.values), tolerance);
  machine.expect("write_kv scales", written.scales, all_of(expected.scales), 1e-6);
  Array codes(Element::f32, static_cast<int64_t>(distances.size()));
  for (size_t i = 0; i < distances.size(); ++i) codes.set(static_cast<int64_t>(i), distances[i]);
  machine.expect("write_kv int8", codes, Numbers(distances.size()), 0.5001);
}

}  // namespace

void check_caches(Machine& machine) {
  for (const Element element : kElements)
    for (const Element kept : kCaches)
      for (const int64_t dim : {37, 64}) check_cache(machine, element, kept, dim);
}

}  // namespace octavo::check
