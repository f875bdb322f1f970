#include "kernels/cpu/packed_matrix.h"

#include <algorithm>
#include <utility>

#include "kernels/cpu/bf16.h"
#include "kernels/quantise.h"
#include "memory/base/check.h"

namespace lorad::kernels::cpu {
namespace {

// Writes row `row` of `m` to lane `lane` of a panel.
void PackLane(const HostMatrix& m, int64_t row, int lane, uint16_t* panel) {
  WithType(m.dtype, [&]<DType kType>() {
    for (int64_t k = 0; k < m.cols; ++k) {
      panel[(k / 2) * 2 * kPanel + 2 * lane + k % 2] = Bf16At<kType>(m.data, row * m.cols + k);
    }
  });
}

// The same as codes; gives their scale.
float PackCodes(const HostMatrix& m, int64_t row, int lane, int8_t* panel) {
  std::vector<float> values(size_t(m.cols));
  std::vector<uint8_t> codes(size_t(m.cols));
  WithType(m.dtype, [&]<DType kType>() {
    for (int64_t k = 0; k < m.cols; ++k) {
      values[size_t(k)] = FloatAt<kType>(m.data, row * m.cols + k);
    }
  });
  float scale = 0;
  QuantiseRow(WeightFormat::kInt8, values, codes, {&scale, 1});
  for (int64_t k = 0; k < m.cols; ++k) {
    panel[k * kPanel + lane] = static_cast<int8_t>(codes[size_t(k)]);
  }
  return scale;
}

}  // namespace

PackedMatrix::PackedMatrix(std::span<const HostMatrix> stacked, std::span<const float> bias,
                           WeightFormat format, const ForEach& for_each)
    : coded_(format == WeightFormat::kInt8) {
  LORAD_CHECK(!stacked.empty() && (coded_ || format == WeightFormat::kBf16));
  cols_ = static_cast<int>(stacked[0].cols);
  std::vector<int> first_rows;
  for (const HostMatrix& m : stacked) {
    LORAD_CHECK(m.cols == cols_ && m.rows > 0 && m.cols > 0);
    first_rows.push_back(rows_);
    rows_ += static_cast<int>(m.rows);
  }
  LORAD_CHECK(bias.empty() || static_cast<int>(bias.size()) == rows_);
  const size_t element = coded_ ? sizeof(int8_t) : sizeof(uint16_t);
  auto memory = HostMemory::Allocate(size_t(panels()) * size_t(padded_cols()) * kPanel * element);
  LORAD_CHECK(memory.ok());
  memory_ = *std::move(memory);
  if (!bias.empty()) {
    bias_.assign(size_t(panels()) * kPanel, 0.0f);
    std::copy(bias.begin(), bias.end(), bias_.begin());
  }
  if (coded_) scales_.resize(size_t(panels()) * kPanel);
  for_each(panels(), [&](int panel) {
    for (int row = panel * kPanel; row < std::min(rows_, (panel + 1) * kPanel); ++row) {
      const auto part = std::upper_bound(first_rows.begin(), first_rows.end(), row) - 1;
      const HostMatrix& m = stacked[size_t(part - first_rows.begin())];
      if (coded_) {
        scales_[size_t(row)] = PackCodes(m, row - *part, row % kPanel, Panel<int8_t>(panel));
      } else {
        PackLane(m, row - *part, row % kPanel, Panel<uint16_t>(panel));
      }
    }
  });
}

void PackedMatrix::UnpackRow(int row, float* out) const {
  LORAD_CHECK(row >= 0 && row < rows_);
  if (coded_) {
    const int8_t* codes = Panel<int8_t>(row / kPanel) + row % kPanel;
    for (int k = 0; k < cols_; ++k) {
      out[k] = static_cast<float>(codes[int64_t{k} * kPanel]) * scales_[size_t(row)];
    }
    return;
  }
  const uint16_t* lane = Panel<uint16_t>(row / kPanel) + 2 * (row % kPanel);
  int k = 0;
  for (; k + 2 <= cols_; k += 2, lane += 2 * kPanel) {
    out[k] = FloatOfBf16(lane[0]);
    out[k + 1] = FloatOfBf16(lane[1]);
  }
  if (k < cols_) out[k] = FloatOfBf16(lane[0]);
}

}  // namespace lorad::kernels::cpu
