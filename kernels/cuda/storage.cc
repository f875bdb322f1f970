#include "kernels/cuda/storage.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cpu/bf16.h"
#include "memory/base/check.h"

namespace lorad::kernels::cuda {
namespace {

constexpr size_t kHalfBytes = size_t{16} << 20;

}  // namespace

DeviceMemory Storage::Allocate(size_t bytes) {
  auto memory = DeviceMemory::Allocate(runtime_, std::max<size_t>(bytes, 1));
  if (memory.ok()) return *std::move(memory);
  status_.Update(memory.status());
  return {};
}

DeviceMemory Storage::Upload(std::span<const std::byte> bytes) {
  DeviceMemory memory = Allocate(bytes.size());
  if (memory.data() == nullptr) return memory;
  for (size_t at = 0; at < bytes.size(); at += kHalfBytes) {
    Half& half = halves_[next_];
    next_ = 1 - next_;
    if (half.memory.data() == nullptr) {
      auto pinned = PinnedMemory::Allocate(runtime_, kHalfBytes);
      status_.Update(pinned.status());
      if (!pinned.ok()) return {};
      half = {*std::move(pinned), OwnedEvent(runtime_)};
    }
    const auto part = bytes.subspan(at, std::min(kHalfBytes, bytes.size() - at));
    status_.Update(runtime_.Synchronize(half.copied.get()));
    std::memcpy(half.memory.data(), part.data(), part.size());
    runtime_.Copy(stream_, memory.data() + at, half.memory.data(), part.size());
    runtime_.Record(half.copied.get(), stream_);
  }
  return memory;
}

std::unique_ptr<CudaTensor> Storage::NewTensor(int max_rows, int cols, bool full) {
  LORAD_CHECK(max_rows >= 1 && cols >= 1);
  TensorView view{.cols = cols, .stride = PaddedColumns(cols), .full = full};
  DeviceMemory memory = Allocate(size_t(max_rows) * size_t(view.stride) * (full ? 4 : 2));
  view.data = memory.data();
  return std::make_unique<CudaTensor>(max_rows, view, std::move(memory));
}

std::unique_ptr<CudaVector> Storage::NewVector(std::span<const float> values) {
  return std::make_unique<CudaVector>(static_cast<int>(values.size()),
                                      Upload(std::as_bytes(values)));
}

std::unique_ptr<CudaMatrix> Storage::NewMatrix(std::span<const HostMatrix> stacked,
                                               std::span<const float> bias, WeightFormat format,
                                               bool with_bf16_bias) {
  const HostWeights host = PackWeights(stacked, format);
  LORAD_CHECK(bias.empty() || static_cast<int>(bias.size()) == host.rows);
  auto matrix = std::make_unique<CudaMatrix>();
  matrix->data = Upload(host.data);
  if (!host.scales.empty()) matrix->scales = Upload(std::as_bytes(std::span(host.scales)));
  if (!bias.empty()) matrix->bias = Upload(std::as_bytes(bias));
  if (!bias.empty() && with_bf16_bias) {
    std::vector<uint16_t> rounded(bias.size());
    std::ranges::transform(bias, rounded.begin(), cpu::Bf16OfFloat);
    matrix->bf16_bias = Upload(std::as_bytes(std::span(rounded)));
  }
  matrix->view = {.format = format,
                  .data = matrix->data.data(),
                  .scales = reinterpret_cast<const float*>(matrix->scales.data()),
                  .bias = reinterpret_cast<const float*>(matrix->bias.data()),
                  .rows = host.rows,
                  .cols = host.cols,
                  .stride = host.stride};
  return matrix;
}

}  // namespace lorad::kernels::cuda
