// CpuBackend: the backend interface on SIMD kernels chosen at run time. Composes the parts:
// PackedMatrix and HostTensor hold numbers, LinearOp and SequenceOps cut operations into tasks,
// ThreadPool runs them, KernelTable computes.
//
// Thread: see Backend. PlanAdapter and PackAdapter touch nothing but their arguments.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "kernels/backend.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/linear_op.h"
#include "kernels/cpu/sequence_ops.h"
#include "kernels/cpu/thread_pool.h"

namespace lorad::kernels::cpu {

class CpuBackend final : public Backend {
 public:
  using Backend::NewTensor;
  using Backend::Pack;

  CpuBackend(const KernelTable& kernels, int threads);

  std::string_view name() const override { return name_; }

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes) override;
  std::unique_ptr<Tensor> NewTensor(int max_rows, int cols, Precision precision) override;
  std::unique_ptr<Vector> NewVector(std::span<const float> values) override;
  std::unique_ptr<Matrix> Pack(std::span<const HostMatrix> stacked, std::span<const float> bias,
                               WeightFormat format) override;
  bool Supports(WeightFormat format) const override {
    return format == WeightFormat::kBf16 || format == WeightFormat::kInt8;
  }

  size_t KvPageBytes(const KvGeometry& geometry) const override;
  void SetPool(const PageSlab& slab, const KvGeometry& geometry) override;

  AdapterLayout PlanAdapter(std::span<const LowRankFactors> factors, uint32_t sites,
                            size_t page_bytes) const override;
  void PackAdapter(const AdapterLayout& layout, std::span<const LowRankFactors> factors,
                   const PageSlab& slab, std::span<const uint32_t> pages) const override;

  void PoisonPages(std::span<const uint32_t> pages) override;
  void CopyPages(std::span<const PageCopy> copies) override;
  void Embed(std::span<const int32_t> ids, const Matrix& table, Tensor& out) override;
  void RmsNorm(int rows, const Tensor& x, const Vector& weight, float eps, Tensor& y) override;
  void Linear(const LinearArgs& args) override;
  void RopeAngles(std::span<const int32_t> positions, const Vector& inv_freq,
                  Tensor& angles) override;
  void RopeAppend(const RopeAppendArgs& args) override;
  void Attention(const AttentionArgs& args) override;
  void SwiGlu(int rows, const Tensor& gate_up, Tensor& out) override;
  void GatherRows(std::span<const int32_t> rows, const Tensor& x, Tensor& out) override;
  std::span<float> HostRow(Tensor& x, int row) override;

  void ParallelFor(int n, const std::function<void(int)>& fn) override;

 private:
  // Runs fn(row) for each row, on all threads if that many elements are worth waking them.
  template <typename Fn>
  void ForRows(int rows, int cols, const Fn& fn);

  const KernelTable& kernels_;
  std::string name_;
  ThreadPool pool_;
  LinearOp linear_;
  SequenceOps sequence_;
  PageSlab slab_;
};

}  // namespace lorad::kernels::cpu
