// A backend that leaves everything to another one: tests override what they want to see or change.
#pragma once

#include <memory>
#include <span>
#include <utility>

#include "kernels/backend.h"

namespace lorad::kernels {

class ForwardingBackend : public Backend {
 public:
  explicit ForwardingBackend(std::unique_ptr<Backend> inner = NewReferenceBackend())
      : inner_(std::move(inner)) {}

  using Backend::NewTensor;
  using Backend::Pack;
  std::string_view name() const override { return inner_->name(); }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes) override {
    return inner_->Allocate(bytes);
  }
  std::unique_ptr<Tensor> NewTensor(int max_rows, int cols, Precision precision) override {
    return inner_->NewTensor(max_rows, cols, precision);
  }
  std::unique_ptr<Vector> NewVector(std::span<const float> values) override {
    return inner_->NewVector(values);
  }
  std::unique_ptr<Matrix> Pack(std::span<const HostMatrix> stacked, std::span<const float> bias,
                               WeightFormat format) override {
    return inner_->Pack(stacked, bias, format);
  }
  size_t KvPageBytes(const KvGeometry& geometry) const override {
    return inner_->KvPageBytes(geometry);
  }
  void SetPool(const PageSlab& slab, const KvGeometry& geometry) override {
    inner_->SetPool(slab, geometry);
  }
  AdapterLayout PlanAdapter(std::span<const LowRankFactors> factors, uint32_t sites,
                            size_t page_bytes) const override {
    return inner_->PlanAdapter(factors, sites, page_bytes);
  }
  void PackAdapter(const AdapterLayout& layout, std::span<const LowRankFactors> factors,
                   const PageSlab& slab, std::span<const uint32_t> pages) const override {
    inner_->PackAdapter(layout, factors, slab, pages);
  }
  void PoisonPages(std::span<const uint32_t> pages) override { inner_->PoisonPages(pages); }
  void CopyPages(std::span<const PageCopy> copies) override { inner_->CopyPages(copies); }
  void Embed(std::span<const int32_t> ids, const Matrix& table, Tensor& out) override {
    inner_->Embed(ids, table, out);
  }
  void RmsNorm(int rows, const Tensor& x, const Vector& weight, float eps, Tensor& y) override {
    inner_->RmsNorm(rows, x, weight, eps, y);
  }
  void Linear(const LinearArgs& args) override { inner_->Linear(args); }
  void RopeAngles(std::span<const int32_t> positions, const Vector& inv_freq,
                  Tensor& angles) override {
    inner_->RopeAngles(positions, inv_freq, angles);
  }
  void RopeAppend(const RopeAppendArgs& args) override { inner_->RopeAppend(args); }
  void Attention(const AttentionArgs& args) override { inner_->Attention(args); }
  void SwiGlu(int rows, const Tensor& gate_up, Tensor& out) override {
    inner_->SwiGlu(rows, gate_up, out);
  }
  void GatherRows(std::span<const int32_t> rows, const Tensor& x, Tensor& out) override {
    inner_->GatherRows(rows, x, out);
  }
  std::span<float> HostRow(Tensor& x, int row) override { return inner_->HostRow(x, row); }
  void ParallelFor(int n, const std::function<void(int)>& fn) override {
    inner_->ParallelFor(n, fn);
  }

 protected:
  Backend& inner() { return *inner_; }

 private:
  const std::unique_ptr<Backend> inner_;
};

}  // namespace lorad::kernels
