#include "kernels/cpu/cpu_backend.h"

#include <cstring>
#include <utility>

#include "fmt/format.h"
#include "kernels/cpu/adapter_image.h"
#include "kernels/cpu/host_memory.h"
#include "kernels/cpu/host_tensor.h"
#include "kernels/cpu/isa_choice.h"
#include "kernels/cpu/packed_matrix.h"
#include "memory/base/check.h"

namespace lorad::kernels {
namespace cpu {
namespace {

constexpr int64_t kInlineElements = 16 << 10;  // fewer are not worth a parallel region

const HostTensor& Of(const Tensor& t) { return static_cast<const HostTensor&>(t); }
HostTensor& Of(Tensor& t) { return static_cast<HostTensor&>(t); }
const HostVector& Of(const Vector& v) { return static_cast<const HostVector&>(v); }

RowsView View(Tensor& t) { return {Of(t).data(), Of(t).stride()}; }
RowsView View(const Tensor& t) { return {const_cast<float*>(Of(t).data()), Of(t).stride()}; }

class HostBuffer final : public Buffer {
 public:
  explicit HostBuffer(HostMemory memory) : memory_(std::move(memory)) {}
  std::byte* data() override { return memory_.data(); }
  size_t bytes() const override { return memory_.bytes(); }

 private:
  HostMemory memory_;
};

}  // namespace

CpuBackend::CpuBackend(const KernelTable& kernels, int threads)
    : kernels_(kernels),
      name_(fmt::format("cpu/{}", kernels.name)),
      pool_(threads),
      linear_(kernels, pool_),
      sequence_(kernels, pool_.threads(),
                [this](int items, const std::function<void(int, int)>& fn) {
                  pool_.ParallelFor(items, fn);
                }) {}

absl::StatusOr<std::unique_ptr<Buffer>> CpuBackend::Allocate(size_t bytes) {
  auto memory = HostMemory::Allocate(bytes);
  if (!memory.ok()) return memory.status();
  return std::make_unique<HostBuffer>(*std::move(memory));
}

std::unique_ptr<Tensor> CpuBackend::NewTensor(int max_rows, int cols, Precision) {
  return std::make_unique<HostTensor>(max_rows, cols);
}

std::unique_ptr<Vector> CpuBackend::NewVector(std::span<const float> values) {
  return std::make_unique<HostVector>(values);
}

std::unique_ptr<Matrix> CpuBackend::Pack(std::span<const HostMatrix> stacked,
                                         std::span<const float> bias, WeightFormat format) {
  LORAD_CHECK(Supports(format));
  return std::make_unique<PackedMatrix>(
      stacked, bias, format,
      [this](int n, const std::function<void(int)>& fn) { ParallelFor(n, fn); });
}

size_t CpuBackend::KvPageBytes(const KvGeometry& geometry) const {
  const size_t bytes = SequenceOps::PageBytes(geometry);
  return (bytes + kPageGranule - 1) / kPageGranule * kPageGranule;
}

void CpuBackend::SetPool(const PageSlab& slab, const KvGeometry& geometry) {
  LORAD_CHECK(slab.page_bytes % kPageGranule == 0);
  slab_ = slab;
  sequence_.SetPool(slab, geometry);
}

AdapterLayout CpuBackend::PlanAdapter(std::span<const LowRankFactors> factors, uint32_t sites,
                                      size_t page_bytes) const {
  return PlanAdapterImage(factors, sites, page_bytes);
}

void CpuBackend::PackAdapter(const AdapterLayout& layout, std::span<const LowRankFactors> factors,
                             const PageSlab& slab, std::span<const uint32_t> pages) const {
  PackAdapterImage(layout, factors, slab, pages, kernels_.tile_order);
}

void CpuBackend::PoisonPages(std::span<const uint32_t> pages) {
  for (const uint32_t page : pages) std::memset(slab_.Page(page), 0xff, slab_.page_bytes);
}

void CpuBackend::CopyPages(std::span<const PageCopy> copies) {
  for (const PageCopy& copy : copies) {
    std::memcpy(slab_.Page(copy.to), slab_.Page(copy.from), slab_.page_bytes);
  }
}

template <typename Fn>
void CpuBackend::ForRows(int rows, int cols, const Fn& fn) {
  if (int64_t{rows} * cols <= kInlineElements) {
    for (int row = 0; row < rows; ++row) fn(row);
  } else {
    pool_.ParallelFor(rows, [&fn](int row, int) { fn(row); });
  }
}

void CpuBackend::Embed(std::span<const int32_t> ids, const Matrix& table, Tensor& out) {
  const auto& packed = static_cast<const PackedMatrix&>(table);
  LORAD_CHECK(packed.cols() == out.cols() && static_cast<int>(ids.size()) <= out.max_rows());
  ForRows(static_cast<int>(ids.size()), out.cols(),
          [&](int i) { packed.UnpackRow(ids[size_t(i)], Of(out).Row(i)); });
}

void CpuBackend::RmsNorm(int rows, const Tensor& x, const Vector& weight, float eps, Tensor& y) {
  const FlushDenormals flush;
  LORAD_CHECK(x.cols() == weight.size() && x.cols() == y.cols());
  ForRows(rows, x.cols(), [&](int row) {
    kernels_.rms_norm({.x = Of(x).Row(row),
                       .weight = Of(weight).data(),
                       .y = Of(y).Row(row),
                       .n = x.cols(),
                       .eps = eps});
  });
}

void CpuBackend::Linear(const LinearArgs& args) {
  const FlushDenormals flush;
  linear_.Run(args, slab_);
}

void CpuBackend::RopeAngles(std::span<const int32_t> positions, const Vector& inv_freq,
                            Tensor& angles) {
  const FlushDenormals flush;
  sequence_.RopeAngles(positions, Of(inv_freq).values(), View(angles));
}

void CpuBackend::RopeAppend(const RopeAppendArgs& args) {
  const FlushDenormals flush;
  sequence_.RopeAppend(args, View(*args.qkv), View(*args.angles),
                       args.q_norm ? Of(*args.q_norm).data() : nullptr,
                       args.k_norm ? Of(*args.k_norm).data() : nullptr);
}

void CpuBackend::Attention(const AttentionArgs& args) {
  const FlushDenormals flush;
  sequence_.Attention(args, View(*args.qkv), View(*args.out));
}

void CpuBackend::SwiGlu(int rows, const Tensor& gate_up, Tensor& out) {
  const FlushDenormals flush;
  const int ffn = out.cols();
  LORAD_CHECK(gate_up.cols() == 2 * ffn);
  ForRows(rows, gate_up.cols(), [&](int row) {
    const float* gate = Of(gate_up).Row(row);
    kernels_.swiglu({.gate = gate, .up = gate + ffn, .out = Of(out).Row(row), .n = ffn});
  });
}

void CpuBackend::GatherRows(std::span<const int32_t> rows, const Tensor& x, Tensor& out) {
  LORAD_CHECK(x.cols() == out.cols() && static_cast<int>(rows.size()) <= out.max_rows());
  for (size_t i = 0; i < rows.size(); ++i) {
    LORAD_CHECK(rows[i] >= 0 && rows[i] < x.max_rows());
    std::memcpy(Of(out).Row(static_cast<int>(i)), Of(x).Row(rows[i]),
                size_t(x.cols()) * sizeof(float));
  }
}

std::span<float> CpuBackend::HostRow(Tensor& x, int row) {
  LORAD_CHECK(row >= 0 && row < x.max_rows());
  return {Of(x).Row(row), size_t(x.cols())};
}

void CpuBackend::ParallelFor(int n, const std::function<void(int)>& fn) {
  pool_.ParallelFor(n, [&fn](int i, int) { fn(i); });
}

}  // namespace cpu

absl::StatusOr<std::unique_ptr<Backend>> NewCpuBackend(const CpuOptions& options) {
  if (options.threads < 0) {
    return absl::InvalidArgumentError(fmt::format("threads is {}, below 0", options.threads));
  }
  auto kernels = cpu::ChooseKernels(options.isa);
  if (!kernels.ok()) return kernels.status();
  return std::make_unique<cpu::CpuBackend>(**kernels, options.threads);
}

}  // namespace lorad::kernels
