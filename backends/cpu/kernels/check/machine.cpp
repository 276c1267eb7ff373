#include "machine.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <sstream>

extern "C" {
int octavo_variants(char* text, int capacity);
void* octavo_context_new(int num_threads, const char* variant);
void octavo_context_free(void* context);
int64_t octavo_run(void* context, const octavo::Instruction* instructions, int64_t count,
                   void* const* pointers);
void* octavo_linear_new(void* context, int scheme, const void* rows, int64_t row_bytes, int64_t out_features,
                        int64_t in_features, const float* bias);
void octavo_linear_free(void* linear);
}

namespace octavo::check {
namespace {

[[noreturn]] void fail(const std::string& message) {
  std::fprintf(stderr, "error: %s\n", message.c_str());
  std::exit(2);
}

}  // namespace

Weight::Weight(void* context, Scheme scheme, const void* rows, int64_t row_bytes, int64_t out_features,
               int64_t in_features, const float* bias)
    : handle_(octavo_linear_new(context, static_cast<int>(scheme), rows, row_bytes, out_features, in_features,
                                bias)) {
  if (handle_ == nullptr) fail("a weight could not be packed");
}
Weight::~Weight() { octavo_linear_free(handle_); }

Machine::Machine(std::string variant) : variant_(std::move(variant)) {
  for (const int num_threads : {1, 2, 4}) {
    contexts_.push_back(octavo_context_new(num_threads, variant_.c_str()));
    if (contexts_.back() == nullptr) fail("there is no variant " + variant_);
  }
}
Machine::~Machine() {
  for (void* context : contexts_) octavo_context_free(context);
}

void Machine::run(const char* name, Opcode opcode, Element element, const std::vector<void*>& operands,
                  const std::vector<int64_t>& sizes, const std::vector<double>& scalars,
                  const std::vector<Array*>& outputs) {
  Instruction instruction{};
  instruction.opcode = opcode;
  instruction.element = element;
  for (int i = 0; i < kMaxOperands; ++i) {
    const bool is_given = i < static_cast<int>(operands.size()) && operands[i] != nullptr;
    instruction.operands[i] = is_given ? i : -1;
  }
  for (size_t i = 0; i < sizes.size(); ++i) instruction.sizes[i] = sizes[i];
  for (size_t i = 0; i < scalars.size(); ++i) instruction.scalars[i] = static_cast<float>(scalars[i]);
  std::vector<Array> first;
  for (void* context : contexts_) {
    if (octavo_run(context, &instruction, 1, operands.data()) != 0) fail(std::string(name) + " has no memory");
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (context == contexts_.front())
        first.push_back(*outputs[i]);
      else
        expect_same(name, first[i].bytes() == outputs[i]->bytes());
    }
  }
}

void Machine::expect(const char* name, const Array& got, const std::vector<double>& expected,
                     double tolerance) {
  Finding& finding = findings_[name];
  for (int64_t i = 0; i < static_cast<int64_t>(expected.size()); ++i) {
    const double wanted = expected[static_cast<size_t>(i)];
    double error = std::fabs(got.get(i) - wanted) / std::max(1.0, std::fabs(wanted));
    if (std::isnan(error)) error = INFINITY;
    if (error / tolerance > finding.ratio) finding = {error, tolerance, error / tolerance, finding.differing};
  }
}

void Machine::expect_same(const char* name, bool is_same) { findings_[name].differing += is_same ? 0 : 1; }

bool Machine::report() const {
  bool all_well = true;
  for (const auto& [name, finding] : findings_) {
    const bool is_well = finding.ratio <= 1 && finding.differing == 0;
    std::printf("%-12s %-22s error %.1e of %.1e  %s\n", variant_.c_str(), name.c_str(), finding.error,
                finding.tolerance,
                is_well                 ? "ok"
                : finding.differing > 0 ? "FAILED: not the same to the bit"
                                        : "FAILED");
    all_well &= is_well;
  }
  return all_well;
}

std::vector<std::string> variants() {
  char text[256];
  if (octavo_variants(text, sizeof text) < 0) fail("too many variants");
  std::istringstream words(text);
  std::vector<std::string> names;
  for (std::string name; words >> name;) names.push_back(name);
  return names;
}

double tolerance_of(Element element) {
  switch (element) {
    case Element::f32: return 1e-5;
    case Element::f16: return 1.0 / 1024;
    default: return 1.0 / 128;
  }
}

}  // namespace octavo::check
