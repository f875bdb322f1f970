#include "tests/bench/kernels/bench_case.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "fmt/format.h"
#include "kernels/cpu/thread_pool.h"

namespace lorad::bench {
namespace {

int Threads() {
  const char* threads = std::getenv("LORAD_BENCH_THREADS");
  return kernels::cpu::ThreadPool(threads ? std::atoi(threads) : 0).threads();
}

}  // namespace

kernels::Backend& TheBackend() {
  static const std::unique_ptr<kernels::Backend> backend = [] {
    const char* isa = std::getenv("LORAD_BENCH_ISA");
    auto made = kernels::NewCpuBackend({.threads = Threads(), .isa = isa ? isa : "auto"});
    if (!made.ok()) {
      std::fprintf(stderr, "%s\n", made.status().ToString().c_str());
      std::exit(1);
    }
    return *std::move(made);
  }();
  return *backend;
}

const MachinePeak& ThePeak() {
  static const MachinePeak peak = MeasureMachinePeak(Threads());
  return peak;
}

std::vector<float> RandomValues(uint64_t seed, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (float& value : values) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    value = (static_cast<float>(state >> 57) - 63.5f) / 64.0f;
  }
  return values;
}

std::unique_ptr<kernels::Matrix> RandomMatrix(uint64_t seed, int rows, int cols,
                                              kernels::WeightFormat format) {
  const std::vector<float> values = RandomValues(seed, int64_t{rows} * cols);
  const kernels::HostMatrix view = {kernels::DType::kF32, values.data(), rows, cols};
  return TheBackend().Pack(std::span(&view, 1), {}, format);
}

void FillRandom(kernels::Backend& backend, kernels::Tensor& tensor, int rows, uint64_t seed) {
  for (int row = 0; row < rows; ++row) {
    const auto values = RandomValues(seed + static_cast<uint64_t>(row), tensor.cols());
    std::ranges::copy(values, backend.HostRow(tensor, row).begin());
  }
}

void Report(benchmark::State& state, double bytes, double flops,
            const std::function<void(int)>& call) {
  std::vector<double> seconds;
  int i = 1;  // the check has left what 0 uses in the caches
  for (auto _ : state) {
    const auto begin = std::chrono::steady_clock::now();
    call(i++);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    state.SetIterationTime(took.count());
    seconds.push_back(took.count());
  }
  std::ranges::sort(seconds);
  const double best = seconds.front(), median = seconds[seconds.size() / 2];
  const double roof = std::max(bytes / (ThePeak().read_gb_per_s * 1e9),
                               flops / (ThePeak().GflopsOf(TheBackend().name()) * 1e9));
  state.counters["best_us"] = best * 1e6;
  state.counters["GB/s"] = bytes / best * 1e-9;
  state.counters["GFLOP/s"] = flops / best * 1e-9;
  state.counters["roof"] = roof / best;
  state.counters["roof_median"] = roof / median;
}

int Main(int argc, char** argv) {
  const MachinePeak& peak = ThePeak();
  benchmark::AddCustomContext("backend", std::string(TheBackend().name()));
  benchmark::AddCustomContext(
      "peak", fmt::format("{} threads: read {:.1f} GB/s; GFLOP/s: fp32 {:.0f}, bf16 dot {:.0f}, "
                          "matrix tiles {:.0f}",
                          Threads(), peak.read_gb_per_s, peak.fp32_gflop_per_s,
                          peak.bf16_dot_gflop_per_s, peak.amx_gflop_per_s));
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace lorad::bench
