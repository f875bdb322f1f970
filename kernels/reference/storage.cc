#include "kernels/reference/storage.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "memory/base/check.h"

namespace lorad::kernels::reference {
namespace {

template <typename T>
T Load(const void* data, int64_t index) {
  T value;
  std::memcpy(&value, static_cast<const std::byte*>(data) + index * int64_t{sizeof(T)}, sizeof(T));
  return value;
}

float FromHalf(uint16_t bits) {
  const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
  const int exponent = (bits >> 10) & 0x1f;
  const auto fraction = static_cast<float>(bits & 0x3ff);
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  if (exponent == 31) return fraction == 0 ? sign * HUGE_VALF : std::nanf("");
  return sign * std::ldexp(1024.0f + fraction, exponent - 25);
}

}  // namespace

std::span<float> F32Tensor::Row(int row) {
  LORAD_CHECK(row >= 0 && row < max_rows_);
  return std::span(values_).subspan(size_t(row) * size_t(cols_), size_t(cols_));
}

std::span<const float> F32Tensor::Row(int row) const {
  LORAD_CHECK(row >= 0 && row < max_rows_);
  return std::span(values_).subspan(size_t(row) * size_t(cols_), size_t(cols_));
}

std::span<const float> F32Matrix::Row(int row) const {
  LORAD_CHECK(row >= 0 && row < rows_);
  return std::span(values_).subspan(size_t(row) * size_t(cols_), size_t(cols_));
}

float Element(const HostMatrix& matrix, int64_t index) {
  switch (matrix.dtype) {
    case DType::kF32:
      return Load<float>(matrix.data, index);
    case DType::kF16:
      return FromHalf(Load<uint16_t>(matrix.data, index));
    case DType::kBF16:
      return std::bit_cast<float>(uint32_t{Load<uint16_t>(matrix.data, index)} << 16);
  }
  LORAD_CHECK(false);
  return 0;
}

double Dot(std::span<const float> a, std::span<const float> b) {
  LORAD_CHECK(a.size() == b.size());
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += double{a[i]} * double{b[i]};
  return sum;
}

}  // namespace lorad::kernels::reference
