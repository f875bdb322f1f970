#include "tests/unit/kernels/conformance.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "memory/base/check.h"

namespace lorad::kernels::conformance {
namespace {

// A stateless generator: value `index` of stream `seed`.
uint64_t Mix(uint64_t seed, uint64_t index) {
  uint64_t z = seed * 0x9e3779b97f4a7c15u + index * 0xbf58476d1ce4e5b9u + 0x94d049bb133111ebu;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

uint16_t ToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// For values that are normal in half precision; rounds to nearest even.
uint16_t ToHalf(float value) {
  if (value == 0) return std::signbit(value) ? 0x8000 : 0;
  int exponent = 0;
  const float fraction = std::frexp(std::fabs(value), &exponent);  // in [0.5, 1)
  LORAD_CHECK(exponent > -14 && exponent < 16);
  const auto rounded = static_cast<uint32_t>(std::nearbyint(std::ldexp(fraction, 11)));
  const uint32_t bits = (static_cast<uint32_t>(exponent + 14) << 10) + (rounded - 1024);
  return static_cast<uint16_t>(bits | (value < 0 ? 0x8000u : 0u));
}

}  // namespace

Rows Make(Values kind, uint64_t seed, int rows, int cols) {
  Rows out(rows, cols);
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < cols; ++c) {
      const uint64_t random = Mix(seed * 1000003 + uint64_t(r), uint64_t(c));
      out.At(r)[size_t(c)] = kind == Values::kGrid
                                 ? float(int(random % 255) - 127) / 64.0f
                                 : float(int64_t(random >> 24) - (int64_t{1} << 39)) * 0x1p-38f;
    }
  }
  return out;
}

Rows Pick(const Rows& all, std::span<const int> order) {
  Rows out(int(order.size()), all.cols);
  for (size_t i = 0; i < order.size(); ++i) {
    std::ranges::copy(all.At(order[i]), out.At(int(i)).begin());
  }
  return out;
}

Encoded Encode(const Rows& values, DType dtype) {
  Encoded out{dtype, values.rows, values.cols, {}};
  out.bytes.resize(values.values.size() * SizeOf(dtype));
  for (size_t i = 0; i < values.values.size(); ++i) {
    const float value = values.values[i];
    if (dtype == DType::kF32) {
      std::memcpy(out.bytes.data() + i * 4, &value, 4);
    } else {
      const uint16_t bits = dtype == DType::kF16 ? ToHalf(value) : ToBf16(value);
      std::memcpy(out.bytes.data() + i * 2, &bits, 2);
    }
  }
  return out;
}

Rig::Rig(const RigOptions& options) {
  backend_ = options.backend == "reference" ? NewReferenceBackend() : MakeVariant(options);
  const size_t page_bytes = std::max(options.page_bytes, backend_->KvPageBytes(options.kv));
  LORAD_CHECK(page_bytes % kPageGranule == 0);
  auto pool = backend_->Allocate(page_bytes * options.pages);
  LORAD_CHECK(pool.ok());
  pool_ = *std::move(pool);
  slab_ = {pool_->data(), page_bytes};
  backend_->SetPool(slab_, options.kv);
  for (uint32_t page = 0; page < options.pages; ++page) free_.push_back(page);
  backend_->PoisonPages(free_);
  std::shuffle(free_.begin(), free_.end(), std::mt19937_64(options.placement));
}

std::vector<uint32_t> Rig::TakePages(uint32_t count) {
  LORAD_CHECK(count <= free_.size());
  std::vector<uint32_t> pages(free_.end() - count, free_.end());
  free_.resize(free_.size() - count);
  return pages;
}

std::unique_ptr<Matrix> Rig::Pack(const Rows& values, DType dtype, WeightFormat format) {
  const Encoded encoded = Encode(values, dtype);
  const HostMatrix view = encoded.view();
  return backend_->Pack({&view, 1}, {}, format);
}

std::unique_ptr<Tensor> Rig::Upload(const Rows& values, int spare, Precision precision) {
  // An embedding is the one way in for numbers from the host.
  const auto table = Pack(values);
  auto tensor = backend_->NewTensor(values.rows + spare, values.cols, precision);
  std::vector<int32_t> ids;
  for (int i = 0; i < values.rows; ++i) ids.push_back(i);
  backend_->Embed(ids, *table, *tensor);
  backend_->HostRow(*tensor, 0);  // the table must live until the copy is done
  return tensor;
}

Rows Rig::Download(Tensor& tensor, int rows) {
  Rows out(rows, tensor.cols());
  for (int row = 0; row < rows; ++row) {
    const auto values = backend_->HostRow(tensor, row);
    LORAD_CHECK(int(values.size()) == tensor.cols());
    std::ranges::copy(values, out.At(row).begin());
  }
  return out;
}

LoadedAdapter::LoadedAdapter(Rig& rig, std::span<const ModuleSpec> modules, uint64_t seed,
                             uint32_t sites) {
  std::vector<Encoded> data;
  for (const ModuleSpec& m : modules) {
    const uint64_t own = seed * 100 + data.size();
    data.push_back(Encode(Make(m.values, own, m.rank, m.d_in), m.dtype));
    data.push_back(Encode(Make(m.values, own + 1, m.out_cols, m.rank), m.dtype));
  }
  std::vector<LowRankFactors> factors;
  for (size_t i = modules.size(); i-- > 0;) {
    factors.push_back({.site = modules[i].site,
                       .out_begin = uint32_t(modules[i].out_begin),
                       .scale = modules[i].scale,
                       .a = data[2 * i].view(),
                       .b = data[2 * i + 1].view()});
  }
  // Planning must not read the numbers.
  std::vector<LowRankFactors> shapes = factors;
  for (auto& f : shapes) f.a.data = f.b.data = nullptr;
  layout = rig.backend().PlanAdapter(shapes, sites, rig.slab().page_bytes);
  pages = rig.TakePages(layout.pages);
  rig.backend().PackAdapter(layout, factors, rig.slab(), pages);
}

Deviation Compare(const Rows& got, const Rows& want) {
  LORAD_CHECK(got.rows == want.rows && got.cols == want.cols && !want.values.empty());
  double error = 0, size = 0, highest = 0;
  for (size_t i = 0; i < want.values.size(); ++i) {
    const double d = double{got.values[i]} - double{want.values[i]};
    if (!std::isfinite(d)) {
      const double infinity = std::numeric_limits<double>::infinity();
      return {infinity, infinity};
    }
    error += d * d;
    size += double{want.values[i]} * double{want.values[i]};
    highest = std::max(highest, std::fabs(d));
  }
  if (highest == 0) return {};
  const double floor = std::numeric_limits<double>::min();
  return {std::sqrt(error / std::max(size, floor)),
          highest / std::sqrt(std::max(size / double(want.values.size()), floor))};
}

bool SameBits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

bool SameBits(const Rows& a, const Rows& b) {
  return a.rows == b.rows && a.cols == b.cols && SameBits(a.values, b.values);
}

testing::AssertionResult Within(const Rows& got, const Rows& want, const Deviation& bound) {
  const Deviation found = Compare(got, want);
  if (found.norm <= bound.norm && found.highest <= bound.highest) {
    return testing::AssertionSuccess();
  }
  return testing::AssertionFailure()
         << "off by " << found.norm << " of the norm (bound " << bound.norm << "), at most by "
         << found.highest << " of the root mean square (bound " << bound.highest << ")";
}

Deviation Stored(const std::string& variant, const Deviation& bound) {
  if (!TraitsOf(variant).rounds_activations) return bound;
  return {bound.norm + kBf16Bound.norm, bound.highest + 2 * kBf16Bound.highest};
}

std::vector<WeightVariant> WeightVariants() {
  std::vector<WeightVariant> variants;
  for (const std::string& backend : Variants()) {
    variants.push_back({backend, WeightFormat::kBf16});
    if (!TraitsOf(backend).slow) variants.push_back({backend, WeightFormat::kInt8});
  }
  return variants;
}

}  // namespace lorad::kernels::conformance
