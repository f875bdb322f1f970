// ReferenceBackend: every operation as the textbook writes it, in fp32 with sums in double, one
// thread, one loop nest an operation. It is the oracle that the other backends are compared with,
// so clarity comes before speed everywhere.
//
// It does NOT share code with the other backends: a mistake in shared code would be invisible to
// the comparison. (But for what the low-precision formats mean, which is defined once: quantise.h.)
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/backend.h"
#include "kernels/reference/kv_pages.h"

namespace lorad::kernels::reference {

class ReferenceBackend final : public Backend {
 public:
  using Backend::NewTensor;
  using Backend::Pack;

  std::string_view name() const override { return "reference"; }

  // storage_ops.cc
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes) override;
  std::unique_ptr<Tensor> NewTensor(int max_rows, int cols, Precision precision) override;
  std::unique_ptr<Vector> NewVector(std::span<const float> values) override;
  std::unique_ptr<Matrix> Pack(std::span<const HostMatrix> stacked, std::span<const float> bias,
                               WeightFormat format) override;
  bool Supports(WeightFormat) const override { return true; }
  std::span<float> HostRow(Tensor& x, int row) override;

  size_t KvPageBytes(const KvGeometry& geometry) const override;
  void SetPool(const PageSlab& slab, const KvGeometry& geometry) override;
  void PoisonPages(std::span<const uint32_t> pages) override;
  void CopyPages(std::span<const PageCopy> copies) override;

  // adapter.cc
  AdapterLayout PlanAdapter(std::span<const LowRankFactors> factors, uint32_t sites,
                            size_t page_bytes) const override;
  void PackAdapter(const AdapterLayout& layout, std::span<const LowRankFactors> factors,
                   const PageSlab& slab, std::span<const uint32_t> pages) const override;

  // linear.cc
  void Linear(const LinearArgs& args) override;

  // elementwise.cc
  void Embed(std::span<const int32_t> ids, const Matrix& table, Tensor& out) override;
  void RmsNorm(int rows, const Tensor& x, const Vector& weight, float eps, Tensor& y) override;
  void SwiGlu(int rows, const Tensor& gate_up, Tensor& out) override;
  void GatherRows(std::span<const int32_t> rows, const Tensor& x, Tensor& out) override;

  // rope.cc
  void RopeAngles(std::span<const int32_t> positions, const Vector& inv_freq,
                  Tensor& angles) override;
  void RopeAppend(const RopeAppendArgs& args) override;

  // attention.cc
  void Attention(const AttentionArgs& args) override;

  void ParallelFor(int n, const std::function<void(int)>& fn) override;

 private:
  PageSlab slab_;
  KvPages kv_;
};

// y[row][out_begin ...] += weight * scale * B (A x[row]) for one module.  In adapter.cc.
void AddLowRank(const AdapterModule& module, const AdapterSegment& segment, const PageSlab& slab,
                const Tensor& x, Tensor& y);

}  // namespace lorad::kernels::reference
