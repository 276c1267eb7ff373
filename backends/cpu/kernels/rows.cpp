// Rows moved as they are: out of the embedding table, by index, and out of strided views.
#include "kernels.h"

namespace octavo::OCTAVO_VARIANT {
namespace {

size_t element_size(const Call& call) { return call.instruction.element == Element::f32 ? 4 : 2; }

// A row by its index; an index that is out of range, which only padding may have, is moved into it.
const char* row_of(const char* rows, int64_t index, int64_t num_rows, size_t stride_bytes) {
  const int64_t inside = std::min(std::max<int64_t>(index, 0), num_rows - 1);
  return rows + static_cast<size_t>(inside) * stride_bytes;
}

int64_t row_chunks(const Call& call) { return chunks_of(call.size(0), rows_per_chunk(call.size(1))); }

void gather(const Call& call, int64_t chunk, int64_t stride, int64_t num_rows) {
  const size_t bytes = element_size(call), row_bytes = static_cast<size_t>(call.size(1)) * bytes;
  const char* source = call.operand<const char>(0);
  const int32_t* indices = call.operand<const int32_t>(1);
  char* out = call.operand<char>(2);
  const Range rows = range_of(chunk, rows_per_chunk(call.size(1)), call.size(0));
  for (int64_t row = rows.begin; row < rows.end; ++row)
    std::memcpy(out + static_cast<size_t>(row) * row_bytes,
                row_of(source, indices[row], num_rows, static_cast<size_t>(stride) * bytes), row_bytes);
}

int64_t copy_chunks(const Call& call) {
  return chunks_of(call.size(0) * call.size(1), rows_per_chunk(call.size(2)));
}

void copy_rows(const Call& call, int64_t chunk, Scratch&) {
  const int64_t inner = call.size(1), dim = call.size(2);
  const size_t bytes = element_size(call), row_bytes = static_cast<size_t>(dim) * bytes;
  const char* x = call.operand<const char>(0);
  char* out = call.operand<char>(1);
  const Range rows = range_of(chunk, rows_per_chunk(dim), call.size(0) * inner);
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t offset = row / inner * call.size(3) + row % inner * call.size(4);
    std::memcpy(out + static_cast<size_t>(row) * row_bytes, x + offset * static_cast<int64_t>(bytes),
                row_bytes);
  }
}

}  // namespace

const Kernel kEmbed = {row_chunks, [](const Call& call, int64_t chunk, Scratch&) {
                         gather(call, chunk, call.size(1), call.size(2));
                       }};
const Kernel kTakeRows = {row_chunks, [](const Call& call, int64_t chunk, Scratch&) {
                            gather(call, chunk, call.size(2), call.size(3));
                          }};
const Kernel kCopy = {copy_chunks, copy_rows};

}  // namespace octavo::OCTAVO_VARIANT
