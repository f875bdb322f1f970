#include <algorithm>
#include <cmath>

#include "kernels/reference/reference_backend.h"
#include "kernels/reference/storage.h"
#include "memory/base/check.h"

namespace lorad::kernels::reference {

void ReferenceBackend::Embed(std::span<const int32_t> ids, const Matrix& table, Tensor& out) {
  for (size_t i = 0; i < ids.size(); ++i) {
    std::ranges::copy(Of(table).Row(ids[i]), Of(out).Row(static_cast<int>(i)).begin());
  }
}

void ReferenceBackend::RmsNorm(int rows, const Tensor& x, const Vector& weight, float eps,
                               Tensor& y) {
  const auto w = Of(weight);
  for (int row = 0; row < rows; ++row) {
    const auto in = Of(x).Row(row);
    const auto out = Of(y).Row(row);
    LORAD_CHECK(in.size() == w.size());
    const double scale = 1.0 / std::sqrt(Dot(in, in) / double(in.size()) + double{eps});
    for (size_t i = 0; i < in.size(); ++i) {
      out[i] = static_cast<float>(in[i] * scale * w[i]);
    }
  }
}

void ReferenceBackend::SwiGlu(int rows, const Tensor& gate_up, Tensor& out) {
  for (int row = 0; row < rows; ++row) {
    const auto in = Of(gate_up).Row(row);
    const auto y = Of(out).Row(row);
    LORAD_CHECK(in.size() == 2 * y.size());
    for (size_t i = 0; i < y.size(); ++i) {
      const double gate = in[i];
      const double up = in[y.size() + i];
      y[i] = static_cast<float>(gate / (1.0 + std::exp(-gate)) * up);
    }
  }
}

void ReferenceBackend::GatherRows(std::span<const int32_t> rows, const Tensor& x, Tensor& out) {
  for (size_t i = 0; i < rows.size(); ++i) {
    std::ranges::copy(Of(x).Row(rows[i]), Of(out).Row(static_cast<int>(i)).begin());
  }
}

}  // namespace lorad::kernels::reference
