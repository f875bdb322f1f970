// Matrices and tensors for the tests of the dense ops, in host memory, which is the emulator's
// device memory too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cuda/dense_decode.h"
#include "kernels/cuda/dense_ops.h"
#include "kernels/cuda/launch.h"

namespace lorad::kernels::cuda {

inline constexpr WeightFormat kFormats[] = {WeightFormat::kBf16, WeightFormat::kInt8,
                                            WeightFormat::kInt4, WeightFormat::kFp8};

// 256-byte aligned; AddressSanitizer sees its exact ends.
class Memory {
 public:
  explicit Memory(size_t bytes) : data_(static_cast<std::byte*>(::operator new(bytes, kAlign))) {
    std::memset(data_, 0, bytes);
  }
  Memory(const void* from, size_t bytes) : Memory(bytes) {
    if (bytes > 0) std::memcpy(data_, from, bytes);
  }
  Memory(Memory&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
  Memory& operator=(Memory&&) = delete;
  ~Memory() { ::operator delete(data_, kAlign); }
  std::byte* data() const { return data_; }

 private:
  static constexpr std::align_val_t kAlign{256};
  std::byte* data_;
};

inline std::vector<float> NormalValues(size_t count, uint64_t seed, float deviation = 1.0f) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> values(count);
  for (float& v : values) v = normal(random);
  return values;
}

// A packed matrix where kernels can read it.
class Weights {
 public:
  Weights(const std::vector<float>& values, int rows, int cols, WeightFormat format,
          std::vector<float> bias = {})
      : Weights(Pack(values, rows, cols, format), format, std::move(bias)) {}
  const WeightsView& view() const { return view_; }
  // What a kernel multiplies by, and what stays for the end: weight = code * scale.
  double Weight(int row, int col) const { return LoadWeights(view_, row, col / 8 * 8).v[col % 8]; }

 private:
  static HostWeights Pack(const std::vector<float>& values, int rows, int cols,
                          WeightFormat format) {
    const HostMatrix m{DType::kF32, values.data(), rows, cols};
    return PackWeights({&m, 1}, format);
  }
  Weights(const HostWeights& packed, WeightFormat format, std::vector<float> bias)
      : data_(packed.data.data(), packed.data.size()),
        scales_(packed.scales.data(), packed.scales.size() * sizeof(float)),
        bias_(bias.data(), bias.size() * sizeof(float)) {
    view_ = {format,
             data_.data(),
             packed.scales.empty() ? nullptr : reinterpret_cast<const float*>(scales_.data()),
             bias.empty() ? nullptr : reinterpret_cast<const float*>(bias_.data()),
             packed.rows,
             packed.cols,
             packed.stride};
  }

  Memory data_;
  Memory scales_;
  Memory bias_;
  WeightsView view_;
};

}  // namespace lorad::kernels::cuda
