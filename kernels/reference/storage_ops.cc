#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "fmt/format.h"
#include "kernels/quantise.h"
#include "kernels/reference/reference_backend.h"
#include "kernels/reference/storage.h"
#include "memory/base/check.h"

namespace lorad::kernels {
namespace reference {
namespace {

size_t RoundUp(size_t value, size_t granule) { return (value + granule - 1) / granule * granule; }

class HostBuffer final : public Buffer {
 public:
  HostBuffer(void* data, size_t bytes) : data_(static_cast<std::byte*>(data)), bytes_(bytes) {}
  ~HostBuffer() override { std::free(data_); }
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;

  std::byte* data() override { return data_; }
  size_t bytes() const override { return bytes_; }

 private:
  std::byte* data_;
  size_t bytes_;
};

// Makes a row of weights what is left of it after coding and decoding.
void RoundToFormat(WeightFormat format, std::span<float> row) {
  std::vector<uint8_t> codes(row.size());
  std::vector<float> scales(size_t(ScalesOf(format, static_cast<int>(row.size()))));
  QuantiseRow(format, row, codes, scales);
  for (size_t i = 0; i < row.size(); ++i) {
    const size_t scale = format == WeightFormat::kInt4 ? i / size_t{kScaleInputs} : 0;
    row[i] = ValueOfCode(format, codes[i]) * scales[scale];
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Buffer>> ReferenceBackend::Allocate(size_t bytes) {
  const size_t rounded = RoundUp(bytes, kPageGranule);
  void* data = rounded < bytes ? nullptr : std::aligned_alloc(kPageGranule, rounded);
  if (data == nullptr) {
    return absl::ResourceExhaustedError(fmt::format("cannot allocate {} bytes", bytes));
  }
  std::memset(data, 0, rounded);
  return std::make_unique<HostBuffer>(data, bytes);
}

std::unique_ptr<Tensor> ReferenceBackend::NewTensor(int max_rows, int cols, Precision) {
  return std::make_unique<F32Tensor>(max_rows, cols);
}

std::unique_ptr<Vector> ReferenceBackend::NewVector(std::span<const float> values) {
  return std::make_unique<F32Vector>(values);
}

std::unique_ptr<Matrix> ReferenceBackend::Pack(std::span<const HostMatrix> stacked,
                                               std::span<const float> bias, WeightFormat format) {
  LORAD_CHECK(Supports(format));
  LORAD_CHECK(!stacked.empty());
  const int64_t cols = stacked[0].cols;
  int64_t rows = 0;
  std::vector<float> values;
  for (const HostMatrix& part : stacked) {
    LORAD_CHECK(part.cols == cols);
    rows += part.rows;
    for (int64_t i = 0; i < part.rows * cols; ++i) values.push_back(Element(part, i));
  }
  if (format != WeightFormat::kBf16) {
    for (int64_t row = 0; row < rows; ++row) {
      RoundToFormat(format, std::span(values).subspan(size_t(row * cols), size_t(cols)));
    }
  }
  LORAD_CHECK(bias.empty() || int64_t(bias.size()) == rows);
  return std::make_unique<F32Matrix>(static_cast<int>(rows), static_cast<int>(cols),
                                     std::move(values),
                                     std::vector<float>(bias.begin(), bias.end()));
}

std::span<float> ReferenceBackend::HostRow(Tensor& x, int row) { return Of(x).Row(row); }

size_t ReferenceBackend::KvPageBytes(const KvGeometry& geometry) const {
  const size_t floats = size_t(geometry.layers) * 2 * size_t(geometry.kv_heads) *
                        size_t(geometry.page_tokens) * size_t(geometry.head_dim);
  return RoundUp(floats * sizeof(float), kPageGranule);
}

void ReferenceBackend::SetPool(const PageSlab& slab, const KvGeometry& geometry) {
  // A pool that holds only adapters has no KV geometry.
  LORAD_CHECK(slab.page_bytes % kPageGranule == 0);
  LORAD_CHECK(KvPageBytes(geometry) <= slab.page_bytes);
  slab_ = slab;
  kv_ = {slab, geometry};
}

void ReferenceBackend::PoisonPages(std::span<const uint32_t> pages) {
  for (const uint32_t page : pages) std::memset(slab_.Page(page), 0xff, slab_.page_bytes);
}

void ReferenceBackend::CopyPages(std::span<const PageCopy> copies) {
  for (const PageCopy& copy : copies) {
    std::memcpy(slab_.Page(copy.to), slab_.Page(copy.from), slab_.page_bytes);
  }
}

void ReferenceBackend::ParallelFor(int n, const std::function<void(int)>& fn) {
  for (int i = 0; i < n; ++i) fn(i);
}

}  // namespace reference

std::unique_ptr<Backend> NewReferenceBackend() {
  return std::make_unique<reference::ReferenceBackend>();
}

}  // namespace lorad::kernels
