#include <algorithm>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/quantise.h"

namespace lorad::kernels::cpu {
namespace {

const PackedMatrix::ForEach kInOrder = [](int n, const std::function<void(int)>& fn) {
  for (int i = 0; i < n; ++i) fn(i);
};

float ValueAt(int row, int col) {
  return static_cast<float>((row * 131 + col * 17) % 255 - 127) / 64.0f;
}

struct Stored {
  std::vector<std::byte> bytes;  // one too many: files are not aligned
  HostMatrix view;
};

Stored Store(DType dtype, int first_row, int rows, int cols) {
  Stored s;
  s.bytes.resize(size_t(rows) * size_t(cols) * SizeOf(dtype) + 1);
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < cols; ++c) {
      const float value = ValueAt(first_row + r, c);
      std::byte* at = s.bytes.data() + 1 + (size_t(r) * size_t(cols) + size_t(c)) * SizeOf(dtype);
      const uint16_t bf16 = Bf16OfFloat(value);
      const auto f16 = static_cast<_Float16>(value);
      if (dtype == DType::kF32) std::memcpy(at, &value, 4);
      if (dtype == DType::kF16) std::memcpy(at, &f16, 2);
      if (dtype == DType::kBF16) std::memcpy(at, &bf16, 2);
    }
  }
  s.view = {dtype, s.bytes.data() + 1, rows, cols};
  return s;
}

TEST(PackedMatrix, StacksEveryFormatAndGivesRowsBack) {
  for (const int cols : {1, 2, 31, 32, 33, 100}) {
    const Stored a = Store(DType::kF32, 0, 5, cols);
    const Stored b = Store(DType::kF16, 5, 30, cols);
    const Stored c = Store(DType::kBF16, 35, 13, cols);
    const std::vector<HostMatrix> stack = {a.view, b.view, c.view};
    const PackedMatrix packed(stack, {}, WeightFormat::kBf16, kInOrder);
    EXPECT_EQ(packed.rows(), 48);
    EXPECT_EQ(packed.cols(), cols);
    EXPECT_EQ(packed.bias(), nullptr);
    std::vector<float> row(size_t(cols) + 1, -1.0f);
    for (int r = 0; r < packed.rows(); ++r) {
      packed.UnpackRow(r, row.data());
      for (int k = 0; k < cols; ++k) ASSERT_EQ(row[size_t(k)], ValueAt(r, k));
      ASSERT_EQ(row[size_t(cols)], -1.0f);  // nothing beyond
    }
  }
}

TEST(PackedMatrix, LayoutIsPanelsOfPairsPaddedWithZeros) {
  const Stored m = Store(DType::kBF16, 0, 20, 5);
  const PackedMatrix packed(std::span(&m.view, 1), {}, WeightFormat::kBf16, kInOrder);
  ASSERT_EQ(packed.panels(), 2);
  ASSERT_EQ(packed.padded_cols(), 32);
  EXPECT_EQ(packed.bytes(), 2u * 16 * 32 * 2);
  for (int panel = 0; panel < 2; ++panel) {
    for (int k = 0; k < 32; ++k) {
      for (int lane = 0; lane < 16; ++lane) {
        const int row = panel * 16 + lane;
        const float want = row < 20 && k < 5 ? ValueAt(row, k) : 0.0f;
        const uint16_t got = packed.data()[panel * 512 + k / 2 * 32 + lane * 2 + k % 2];
        ASSERT_EQ(FloatOfBf16(got), want) << row << "," << k;
      }
    }
  }
}

TEST(PackedMatrix, CodesAreQuantiseRowsInPanelsOfPairs) {
  for (const int cols : {1, 5, 32, 77}) {
    const Stored a = Store(DType::kF32, 0, 5, cols);
    const Stored b = Store(DType::kF16, 5, 12, cols);
    const Stored c = Store(DType::kBF16, 17, 3, cols);
    const std::vector<HostMatrix> stack = {a.view, b.view, c.view};
    const PackedMatrix packed(stack, {}, WeightFormat::kInt8, kInOrder);
    ASSERT_EQ(packed.rows(), 20);
    EXPECT_EQ(packed.data(), nullptr);
    const int padded = packed.padded_cols();
    EXPECT_EQ(packed.bytes(), 2u * 16 * size_t(padded) + 2 * 16 * sizeof(float));
    for (int row = 0; row < 32; ++row) {
      std::vector<float> values, unpacked(size_t(cols), -1.0f);
      for (int k = 0; k < cols; ++k) values.push_back(row < 20 ? ValueAt(row, k) : 0.0f);
      std::vector<uint8_t> codes(size_t(cols), 0);
      float scale = 0;
      QuantiseRow(WeightFormat::kInt8, values, codes, {&scale, 1});
      EXPECT_EQ(packed.scales()[row], scale);
      for (int k = 0; k < padded; ++k) {
        const int8_t got =
            packed.codes()[row / 16 * 16 * padded + k / 2 * 32 + k % 2 * 16 + row % 16];
        ASSERT_EQ(got, k < cols ? static_cast<int8_t>(codes[size_t(k)]) : 0) << row << "," << k;
      }
      if (row >= 20) continue;
      packed.UnpackRow(row, unpacked.data());
      for (int k = 0; k < cols; ++k) {
        const float code = static_cast<int8_t>(codes[size_t(k)]);
        ASSERT_EQ(unpacked[size_t(k)], code * scale);
        ASSERT_NEAR(unpacked[size_t(k)], values[size_t(k)], scale * 0.5001f);
      }
    }
  }
}

TEST(PackedMatrix, BiasIsPaddedWithZeros) {
  const Stored m = Store(DType::kBF16, 0, 18, 4);
  std::vector<float> bias(18);
  for (size_t i = 0; i < bias.size(); ++i) bias[i] = float(i) + 1;
  const PackedMatrix packed(std::span(&m.view, 1), bias, WeightFormat::kBf16, kInOrder);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(packed.bias()[i], i < 18 ? float(i) + 1 : 0.0f);
}

}  // namespace
}  // namespace lorad::kernels::cpu
