#include "model/matrix_slice.h"

#include <cstring>

#include "memory/base/check.h"

namespace lorad {

using kernels::HostMatrix;

HostMatrix SliceRows(const HostMatrix& m, int64_t begin, int64_t count) {
  LORAD_CHECK(begin >= 0 && count >= 0 && begin + count <= m.rows);
  HostMatrix slice = m;
  slice.rows = count;
  if (m.data != nullptr) {
    slice.data = static_cast<const std::byte*>(m.data) +
                 static_cast<size_t>(begin * m.cols) * kernels::SizeOf(m.dtype);
  }
  return slice;
}

HostMatrix CopyColumns(const HostMatrix& m, int64_t begin, int64_t count,
                       std::vector<std::byte>* storage) {
  LORAD_CHECK(begin >= 0 && count >= 0 && begin + count <= m.cols);
  HostMatrix slice = m;
  slice.cols = count;
  if (m.data == nullptr) return slice;
  const size_t width = kernels::SizeOf(m.dtype);
  const size_t row_bytes = static_cast<size_t>(m.cols) * width;
  const size_t slice_bytes = static_cast<size_t>(count) * width;
  storage->resize(static_cast<size_t>(m.rows) * slice_bytes);
  const auto* from = static_cast<const std::byte*>(m.data) + static_cast<size_t>(begin) * width;
  for (size_t row = 0; row < static_cast<size_t>(m.rows); ++row) {
    std::memcpy(storage->data() + row * slice_bytes, from + row * row_bytes, slice_bytes);
  }
  slice.data = storage->data();
  return slice;
}

}  // namespace lorad
