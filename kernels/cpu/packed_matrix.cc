#include "kernels/cpu/packed_matrix.h"

#include <algorithm>
#include <utility>

#include "kernels/cpu/bf16.h"
#include "memory/base/check.h"

namespace lorad::kernels::cpu {
namespace {

// Writes row `row` of `m` to lane `lane` of a panel.
template <DType kType>
void PackLane(const HostMatrix& m, int64_t row, int lane, uint16_t* panel) {
  for (int64_t k = 0; k < m.cols; ++k) {
    panel[(k / 2) * 2 * kPanel + 2 * lane + k % 2] = Bf16At<kType>(m.data, row * m.cols + k);
  }
}

void PackLane(const HostMatrix& m, int64_t row, int lane, uint16_t* panel) {
  switch (m.dtype) {
    case DType::kF32:
      return PackLane<DType::kF32>(m, row, lane, panel);
    case DType::kF16:
      return PackLane<DType::kF16>(m, row, lane, panel);
    case DType::kBF16:
      return PackLane<DType::kBF16>(m, row, lane, panel);
  }
}

}  // namespace

PackedMatrix::PackedMatrix(std::span<const HostMatrix> stacked, std::span<const float> bias,
                           const ForEach& for_each) {
  LORAD_CHECK(!stacked.empty());
  cols_ = static_cast<int>(stacked[0].cols);
  std::vector<int> first_rows;
  for (const HostMatrix& m : stacked) {
    LORAD_CHECK(m.cols == cols_ && m.rows > 0 && m.cols > 0);
    first_rows.push_back(rows_);
    rows_ += static_cast<int>(m.rows);
  }
  LORAD_CHECK(bias.empty() || static_cast<int>(bias.size()) == rows_);
  auto memory =
      HostMemory::Allocate(size_t(panels()) * size_t(padded_cols()) * kPanel * sizeof(uint16_t));
  LORAD_CHECK(memory.ok());
  memory_ = *std::move(memory);
  if (!bias.empty()) {
    bias_.assign(size_t(panels()) * kPanel, 0.0f);
    std::copy(bias.begin(), bias.end(), bias_.begin());
  }
  for_each(panels(), [&](int panel) {
    for (int row = panel * kPanel; row < std::min(rows_, (panel + 1) * kPanel); ++row) {
      const auto part = std::upper_bound(first_rows.begin(), first_rows.end(), row) - 1;
      PackLane(stacked[size_t(part - first_rows.begin())], row - *part, row % kPanel, Panel(panel));
    }
  });
}

void PackedMatrix::UnpackRow(int row, float* out) const {
  LORAD_CHECK(row >= 0 && row < rows_);
  const uint16_t* lane = Panel(row / kPanel) + 2 * (row % kPanel);
  int k = 0;
  for (; k + 2 <= cols_; k += 2, lane += 2 * kPanel) {
    out[k] = FloatOfBf16(lane[0]);
    out[k + 1] = FloatOfBf16(lane[1]);
  }
  if (k < cols_) out[k] = FloatOfBf16(lane[0]);
}

}  // namespace lorad::kernels::cpu
