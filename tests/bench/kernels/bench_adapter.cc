// The q,k,v layer of a 1B model with an adapter on each row or on all of them, cold: calls go round
// sites whose weights and adapters fill more than any cache. `adapters` = 0 is the same layer
// without; compare its time for what adapters cost.
#include <cmath>
#include <memory>
#include <numeric>
#include <vector>

#include "tests/bench/kernels/bench_case.h"

namespace lorad::bench {
namespace {

constexpr int kHidden = 2048;
constexpr int kParts[] = {2048, 512, 512};  // q, k, v
constexpr int kOutputs = 3072;
constexpr uint32_t kSites = 24;
constexpr size_t kPageBytes = size_t{2} << 20;

struct Factors {
  std::vector<float> a, b;
  int rank, first, outputs;
};

// One adapter's factors for one site; the same at each.
std::vector<Factors> MakeFactors(uint64_t seed, int rank) {
  std::vector<Factors> made;
  int first = 0;
  for (const int outputs : kParts) {
    made.push_back({RandomValues(++seed, int64_t{rank} * kHidden),
                    RandomValues(++seed, int64_t{outputs} * rank), rank, first, outputs});
    first += outputs;
  }
  return made;
}

struct Adapter {
  std::vector<Factors> factors;
  kernels::AdapterLayout layout;
  std::vector<uint32_t> pages;
};

// A model's worth of layers and a pool of adapters.
class Stage {
 public:
  Stage(int adapters, const std::vector<int>& ranks) {
    kernels::Backend& backend = TheBackend();
    for (uint32_t site = 0; site < kSites; ++site)
      layers_.push_back(RandomMatrix(site, kOutputs, kHidden));
    uint32_t pages = 0;
    for (int i = 0; i < adapters; ++i) {
      Adapter& adapter = adapters_.emplace_back();
      adapter.factors = MakeFactors(100 * uint64_t(i + 1), ranks[size_t(i) % ranks.size()]);
      adapter.layout = backend.PlanAdapter(OfAllSites(adapter.factors), kSites, kPageBytes);
      pages += adapter.layout.pages;
    }
    if (pages == 0) return;
    pool_ = *backend.Allocate(pages * kPageBytes);
    slab_ = {pool_->data(), kPageBytes};
    backend.SetPool(slab_, {.layers = 1, .kv_heads = 1, .head_dim = 64});
    uint32_t next = 0;
    for (Adapter& adapter : adapters_) {
      adapter.pages.resize(adapter.layout.pages);
      std::iota(adapter.pages.begin(), adapter.pages.end(), next);
      next += adapter.layout.pages;
      backend.PackAdapter(adapter.layout, OfAllSites(adapter.factors), slab_, adapter.pages);
    }
  }

  const kernels::Matrix& layer(uint32_t site) const { return *layers_[site]; }
  const std::vector<Adapter>& adapters() const { return adapters_; }
  double AdapterBytesASite() const {
    double bytes = 0;
    for (const Adapter& adapter : adapters_) bytes += double(adapter.layout.image_bytes) / kSites;
    return bytes;
  }

 private:
  static std::vector<kernels::LowRankFactors> OfAllSites(const std::vector<Factors>& factors) {
    std::vector<kernels::LowRankFactors> all;
    for (uint32_t site = 0; site < kSites; ++site) {
      for (const Factors& f : factors) {
        all.push_back({.site = site,
                       .out_begin = uint32_t(f.first),
                       .scale = 0.5f,
                       .a = {kernels::DType::kF32, f.a.data(), f.rank, kHidden},
                       .b = {kernels::DType::kF32, f.b.data(), f.outputs, f.rank}});
      }
    }
    return all;
  }

  std::vector<std::unique_ptr<kernels::Matrix>> layers_;
  std::vector<Adapter> adapters_;
  std::unique_ptr<kernels::Buffer> pool_;
  kernels::PageSlab slab_;
};

// Whether what the adapter added to a row is what double gives.
bool Right(const Adapter& adapter, const std::vector<float>& x, const std::vector<float>& base,
           std::span<const float> y) {
  double error = 0, norm = 0;
  for (const Factors& f : adapter.factors) {
    std::vector<double> t(size_t(f.rank), 0.0);
    for (size_t r = 0; r < t.size(); ++r) {
      for (size_t k = 0; k < kHidden; ++k) t[r] += double{x[k]} * f.a[r * kHidden + k];
    }
    for (size_t o = 0; o < size_t(f.outputs); ++o) {
      double want = 0;
      for (size_t r = 0; r < t.size(); ++r) want += 0.5 * t[r] * f.b[o * t.size() + r];
      const double got = double{y[size_t(f.first) + o]} - base[size_t(f.first) + o];
      error += (got - want) * (got - want);
      norm += want * want;
    }
  }
  return std::sqrt(error) <= 1e-3 * std::sqrt(norm);
}

void Run(benchmark::State& state, int rows, int adapters, const std::vector<int>& ranks) {
  kernels::Backend& backend = TheBackend();
  const Stage stage(adapters, ranks);
  std::vector<kernels::AdapterSegment> segments;
  double flops = 2.0 * rows * kHidden * kOutputs;
  for (int i = 0; i < adapters; ++i) {
    const Adapter& adapter = stage.adapters()[size_t(i)];
    segments.push_back({.first_row = rows * i / adapters,
                        .end_row = rows * (i + 1) / adapters,
                        .layout = &adapter.layout,
                        .pages = adapter.pages});
    for (const Factors& f : adapter.factors) {
      flops += 2.0 * (segments.back().end_row - segments.back().first_row) * f.rank *
               (kHidden + f.outputs);
    }
  }
  const auto x = backend.NewTensor(rows, kHidden), y = backend.NewTensor(rows, kOutputs);
  FillRandom(backend, *x, rows, 5000);
  const auto call = [&](uint32_t site, std::span<const kernels::AdapterSegment> with) {
    backend.Linear({.rows = rows,
                    .x = x.get(),
                    .w = &stage.layer(site),
                    .y = y.get(),
                    .site = site,
                    .segments = with});
  };
  if (adapters > 0) {
    const auto copy = [](std::span<const float> row) {
      return std::vector<float>(row.begin(), row.end());
    };
    call(0, {});
    const auto base = copy(backend.HostRow(*y, rows - 1));
    call(0, segments);
    if (!Right(stage.adapters().back(), copy(backend.HostRow(*x, rows - 1)), base,
               backend.HostRow(*y, rows - 1))) {
      state.SkipWithError("the result is wrong");
      return;
    }
  }
  const double bytes = 2.0 * kHidden * kOutputs + stage.AdapterBytesASite();
  state.counters["adapter_share"] = stage.AdapterBytesASite() / bytes;
  Report(state, bytes, flops, [&](int i) { call(uint32_t(i) % kSites, segments); });
}

// One row each.
void BM_Decode(benchmark::State& state) {
  Run(state, int(state.range(0)), int(state.range(1)), {int(state.range(2))});
}
BENCHMARK(BM_Decode)
    ->ArgNames({"rows", "adapters", "rank"})
    ->Args({1, 0, 16})
    ->Args({1, 1, 16})
    ->Args({8, 0, 16})
    ->Args({8, 1, 16})
    ->Args({8, 8, 16})
    ->Args({32, 0, 16})
    ->Args({32, 1, 16})
    ->Args({32, 8, 16})
    ->Args({32, 32, 16})
    ->Args({32, 32, 64})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

void BM_DecodeMixedRanks(benchmark::State& state) { Run(state, 32, 32, {4, 8, 16, 32, 64}); }
BENCHMARK(BM_DecodeMixedRanks)->UseManualTime()->Unit(benchmark::kMicrosecond);

// Many rows of few adapters.
void BM_Prefill(benchmark::State& state) {
  Run(state, 512, int(state.range(0)), {int(state.range(1))});
}
BENCHMARK(BM_Prefill)
    ->ArgNames({"adapters", "rank"})
    ->Args({0, 16})
    ->Args({1, 16})
    ->Args({4, 16})
    ->Args({1, 64})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace lorad::bench

int main(int argc, char** argv) { return lorad::bench::Main(argc, argv); }
