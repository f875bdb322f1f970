// Weights from a seed: bfloat16 numbers made one matrix at a time.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <deque>
#include <string_view>
#include <vector>

#include "model/weights.h"

namespace lorad {
namespace {

// SplitMix64's finaliser: counter in, well-mixed bits out.
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

uint64_t Hash(std::string_view text) {  // FNV-1a: the same in every build
  uint64_t hash = 0xCBF29CE484222325u;
  for (char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3u;
  return hash;
}

uint16_t RoundToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

// The low 16 bits as a number in [-1, 1).
float Unit(uint64_t bits) { return static_cast<float>(static_cast<int16_t>(bits)) * 0x1.0p-15f; }

class DummySource final : public TensorSource {
 public:
  DummySource(uint64_t seed, kernels::Backend* backend) : seed_(seed), backend_(backend) {}

  absl::StatusOr<kernels::HostMatrix> Matrix(std::string_view name, int64_t rows,
                                             int64_t cols) override {
    std::vector<uint16_t>& values = held_.emplace_back(static_cast<size_t>(rows * cols));
    // Uniform over [-1, 1) has variance 1/3.
    const float spread = std::sqrt(3.0f / static_cast<float>(cols));
    const uint64_t key = Mix(seed_ ^ Hash(name));
    constexpr size_t kBlock = size_t{1} << 18;
    const size_t blocks = (values.size() + kBlock - 1) / kBlock;
    backend_->ParallelFor(static_cast<int>(blocks), [&](int block) {
      const size_t begin = static_cast<size_t>(block) * kBlock;
      const size_t end = std::min(values.size(), begin + kBlock);
      uint64_t bits = 0;
      for (size_t i = begin; i < end; ++i) {
        bits = i % 4 == 0 ? Mix(key + i / 4) : bits >> 16;  // four numbers a hash
        values[i] = RoundToBf16(spread * Unit(bits));
      }
    });
    return kernels::HostMatrix{kernels::DType::kBF16, values.data(), rows, cols};
  }

  absl::StatusOr<std::vector<float>> Vector(std::string_view name, int64_t size) override {
    const float center = name.find("norm") != std::string_view::npos ? 1.0f : 0.0f;
    const uint64_t key = Mix(seed_ ^ Hash(name));
    std::vector<float> values(static_cast<size_t>(size));
    for (size_t i = 0; i < values.size(); ++i) values[i] = center + 0.1f * Unit(Mix(key + i));
    return values;
  }

  void Release() override { held_.clear(); }

 private:
  const uint64_t seed_;
  kernels::Backend* const backend_;
  std::deque<std::vector<uint16_t>> held_;  // since the last Release; a deque keeps addresses
};

}  // namespace

absl::StatusOr<std::unique_ptr<ModelWeights>> MakeDummyWeights(const ModelConfig& config,
                                                               uint64_t seed,
                                                               kernels::Backend* backend,
                                                               const WeightOptions& options) {
  DummySource source(seed, backend);
  return BuildWeights(config, &source, backend, options);
}

}  // namespace lorad
