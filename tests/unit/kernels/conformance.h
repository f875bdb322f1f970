// The conformance suite's stage: one Rig a backend and case, with a pool of poisoned pages, so that
// the same case runs on the reference and on any other backend and the results can be compared.
//
// Two kinds of values are used. *Grid* values (multiples of 1/64 with seven bits) are exact in
// fp32, fp16 and bf16, and sums of up to a thousand of their products are exact in fp32 whatever
// the order, so results that need no rounding must be equal to the bit. *Dense* values use the
// whole fp32 mantissa, and comparisons allow for bf16 weights.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/backend.h"
#include "kernels/quantise.h"

namespace lorad::kernels::conformance {

// Rows of numbers on the host.
struct Rows {
  int rows = 0;
  int cols = 0;
  std::vector<float> values;  // [rows, cols]

  Rows() = default;
  Rows(int r, int c) : rows(r), cols(c), values(size_t(r) * size_t(c)) {}
  std::span<float> At(int row) {
    return std::span(values).subspan(size_t(row) * size_t(cols), size_t(cols));
  }
  std::span<const float> At(int row) const {
    return std::span(values).subspan(size_t(row) * size_t(cols), size_t(cols));
  }
};

enum class Values { kGrid, kDense };

// Row `i` of the result depends only on (seed, i): a case can rebuild any row of a batch elsewhere.
Rows Make(Values kind, uint64_t seed, int rows, int cols);
// Rows `order` of `all`.
Rows Pick(const Rows& all, std::span<const int> order);

// A matrix in one of the file formats. Grid values survive any format unchanged.
struct Encoded {
  DType dtype;
  int rows;
  int cols;
  std::vector<std::byte> bytes;
  HostMatrix view() const { return {dtype, bytes.data(), rows, cols}; }
};
Encoded Encode(const Rows& values, DType dtype);

struct RigOptions {
  std::string backend = "reference";  // or one of Variants()
  int threads = 2;
  size_t page_bytes = kPageGranule;  // at least; a KV page may need more
  uint32_t pages = 64;
  KvGeometry kv = {};
  uint64_t placement = 1;  // seed of the order in which pages are handed out
};

class Rig {
 public:
  explicit Rig(const RigOptions& options);

  Backend& backend() { return *backend_; }
  const PageSlab& slab() const { return slab_; }
  // Pages in a scattered order, full of NaN patterns, never handed out before.
  std::vector<uint32_t> TakePages(uint32_t count);
  // A tensor with room for `spare` rows more than `values` has.
  std::unique_ptr<Tensor> Upload(const Rows& values, int spare = 0,
                                 Precision precision = Precision::kActivation);
  std::unique_ptr<Matrix> Pack(const Rows& values, DType dtype = DType::kF32,
                               WeightFormat format = WeightFormat::kBf16);
  Rows Download(Tensor& tensor, int rows);

 private:
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Buffer> pool_;
  PageSlab slab_;
  std::vector<uint32_t> free_;
};

struct ModuleSpec {
  uint32_t site = 0;
  int rank = 8;
  int d_in = 64;
  int out_begin = 0;
  int out_cols = 64;
  float scale = 1.0f;
  Values values = Values::kGrid;
  DType dtype = DType::kF32;
};

// An adapter in a rig's pages. Modules are given to the backend in reverse order, which must not
// matter.
struct LoadedAdapter {
  LoadedAdapter(Rig& rig, std::span<const ModuleSpec> modules, uint64_t seed, uint32_t sites);
  AdapterLayout layout;
  std::vector<uint32_t> pages;
};

// How far `got` is from `want`.
struct Deviation {
  double norm = 0;     // |got - want| / |want| over all values
  double highest = 0;  // largest |got - want| over the root mean square of `want`
};
Deviation Compare(const Rows& got, const Rows& want);
bool SameBits(const Rows& a, const Rows& b);
bool SameBits(std::span<const float> a, std::span<const float> b);

// Bounds. fp32: sums of a few thousand products in another order. bf16: values that were rounded to
// eight bits on the way.
inline constexpr Deviation kExact{0, 0};
inline constexpr Deviation kF32Bound{2e-6, 3e-5};
inline constexpr Deviation kBf16Bound{1.0 / 256, 1.0 / 32};

// Whether `got` is within `bound` of `want`.
testing::AssertionResult Within(const Rows& got, const Rows& want, const Deviation& bound);

// --- What is tested. A program of the suite links one file that knows: cpu_variants.cc, or
// cuda_variants.cc with the emulated device or a real one. ---

// The backends that this machine can run: of the CPU its instruction sets.
std::vector<std::string> Variants();
std::unique_ptr<Backend> MakeVariant(const RigOptions& options);
struct VariantTraits {
  bool rounds_activations = false;  // to bf16
  bool slow = false;                // by far: large cases are left out or made smaller
};
VariantTraits TraitsOf(const std::string& variant);

// Those with bf16 weights and, where they are not slow, with int8 weights.
struct WeightVariant {
  std::string backend;
  WeightFormat format;
};
std::vector<WeightVariant> WeightVariants();
inline std::string WeightVariantName(const testing::TestParamInfo<WeightVariant>& info) {
  return info.param.backend + "_" + std::string(Name(info.param.format));
}

// What a result may be off by that goes through activations, where arithmetic alone allows `bound`.
Deviation Stored(const std::string& variant, const Deviation& bound);
// `slow` cases where the variant is slow.
template <typename T>
T Fit(const std::string& variant, T fast, T slow) {
  return TraitsOf(variant).slow ? slow : fast;
}

inline std::string VariantName(const testing::TestParamInfo<std::string>& info) {
  return info.param;
}

}  // namespace lorad::kernels::conformance
