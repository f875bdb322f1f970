#include "kernels/cuda/dense_weights.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "kernels/cpu/bf16.h"
#include "kernels/cuda/dense_ops.h"
#include "kernels/cuda/views.h"
#include "kernels/quantise.h"
#include "memory/base/check.h"

namespace lorad::kernels::cuda {
namespace {

using Values = std::vector<float>;   // of one row, padding zero
using Codes = std::vector<uint8_t>;  // of one row in plain order, padding zero

// Bf16 of a float. Loops over it vectorise: no branch (there are no NaN).
uint16_t Bf16Of(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Writes [0, m.cols) of `out`. The file's elements may lie at any byte.
void ReadRow(const HostMatrix& m, int64_t row, float* out) {
  const size_t cols = static_cast<size_t>(m.cols);
  const std::byte* from =
      static_cast<const std::byte*>(m.data) + size_t(row) * cols * SizeOf(m.dtype);
  if (m.dtype == DType::kF32) {
    std::memcpy(out, from, cols * sizeof(float));
    return;
  }
  constexpr size_t kPart = 256;
  uint16_t part[kPart];
  for (size_t at = 0; at < cols; at += kPart) {
    const size_t count = std::min(kPart, cols - at);
    std::memcpy(part, from + at * sizeof(uint16_t), count * sizeof(uint16_t));
    if (m.dtype == DType::kBF16) {
      for (size_t i = 0; i < count; ++i) out[at + i] = cpu::FloatOfBf16(part[i]);
    } else {
      for (size_t i = 0; i < count; ++i) out[at + i] = cpu::FloatOfF16(part[i]);
    }
  }
}

void PackBf16Row(const HostMatrix& m, int64_t row, Values& values, std::byte* to) {
  const size_t cols = static_cast<size_t>(m.cols);
  if (m.dtype == DType::kBF16) {
    const auto* from = static_cast<const std::byte*>(m.data);
    std::memcpy(to, from + size_t(row) * cols * 2, cols * 2);
    return;
  }
  ReadRow(m, row, values.data());
  auto* out = reinterpret_cast<uint16_t*>(to);
  for (size_t i = 0; i < cols; ++i) out[i] = Bf16Of(values[i]);
}

// Lays a row's codes out as lines. Inputs 0..3 of a word are at bytes 0, 2, 1, 3.
void LayBytes(const Codes& codes, int lines, std::byte* to) {
  for (int octet = 0; octet < 8 * lines; ++octet) {
    uint32_t words[2];
    std::memcpy(words, codes.data() + size_t(octet) * 8, 8);
    for (uint32_t& w : words) {
      w = (w & 0xff0000ffu) | ((w & 0x0000ff00u) << 8) | ((w & 0x00ff0000u) >> 8);
    }
    std::memcpy(to + OctetOffset(WeightFormat::kInt8, octet * 8), words, 8);
  }
}

// Inputs 2i and 2i + 1 of an octet are at halfbytes i and i + 4.
void LayHalfBytes(const Codes& codes, int lines, std::byte* to) {
  for (int octet = 0; octet < 16 * lines; ++octet) {
    const uint8_t* q = codes.data() + size_t(octet) * 8;
    uint32_t word = 0;
    for (int i = 0; i < 4; ++i) {
      word |= uint32_t{q[2 * i]} << (4 * i) | uint32_t{q[2 * i + 1]} << (4 * i + 16);
    }
    std::memcpy(to + OctetOffset(WeightFormat::kInt4, octet * 8), &word, 4);
  }
}

}  // namespace

HostWeights PackWeights(std::span<const HostMatrix> stacked, WeightFormat format) {
  static_assert(std::endian::native == std::endian::little);
  LORAD_CHECK(!stacked.empty());
  HostWeights packed;
  packed.cols = static_cast<int>(stacked[0].cols);
  for (const HostMatrix& m : stacked) {
    LORAD_CHECK(m.cols == packed.cols && m.rows > 0 && m.cols > 0);
    packed.rows += static_cast<int>(m.rows);
  }
  packed.stride = PaddedColumns(packed.cols);
  const size_t row_bytes = size_t(WeightRowBytes(format, packed.stride));
  const size_t row_scales = size_t(ScalesPerRow(format, packed.stride));
  const int lines = LinesPerRow(format, packed.stride);
  packed.data.resize(size_t(packed.rows) * row_bytes);
  packed.scales.resize(size_t(packed.rows) * row_scales);

  const size_t inputs = size_t(lines) * size_t(LineInputs(format));
  Values values(inputs);
  Codes codes(inputs, format == WeightFormat::kInt4 ? 8 : 0);
  std::byte* to = packed.data.data();
  float* scales = packed.scales.data();
  for (const HostMatrix& m : stacked) {
    for (int64_t row = 0; row < m.rows; ++row, to += row_bytes, scales += row_scales) {
      if (format == WeightFormat::kBf16) {
        PackBf16Row(m, row, values, to);
        continue;
      }
      ReadRow(m, row, values.data());
      const size_t stride = size_t(packed.stride);
      QuantiseRow(format, std::span(values).first(stride), std::span(codes).first(stride),
                  {scales, row_scales});
      if (format == WeightFormat::kInt4) {
        LayHalfBytes(codes, lines, to);
      } else {
        LayBytes(codes, lines, to);
      }
    }
  }
  return packed;
}

}  // namespace lorad::kernels::cuda
