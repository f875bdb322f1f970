// y = x W^T with cold weights, as a model runs it: the calls go round more than 256 MB of matrices.
#include <cmath>
#include <memory>
#include <vector>

#include "tests/bench/kernels/bench_case.h"

namespace lorad::bench {
namespace {

constexpr int64_t kColdBytes = int64_t{256} << 20;

// Whether some outputs of a Linear are what double gives.
bool Right(const std::vector<float>& w, int inputs, kernels::Tensor& x, kernels::Tensor& y,
           int rows) {
  const auto in = TheBackend().HostRow(x, rows - 1);
  const std::vector<float> x_row(in.begin(), in.end());
  const auto out = TheBackend().HostRow(y, rows - 1);
  double error = 0, norm = 0;
  for (size_t o = 0; o < out.size(); o += 7) {
    double want = 0;
    for (size_t k = 0; k < x_row.size(); ++k) want += double{x_row[k]} * w[o * size_t(inputs) + k];
    error += (out[o] - want) * (out[o] - want);
    norm += want * want;
  }
  return std::sqrt(error) <= 1e-3 * std::sqrt(norm);
}

void BM_Gemm(benchmark::State& state) {
  const auto inputs = static_cast<int>(state.range(0)), outputs = static_cast<int>(state.range(1));
  const auto rows = static_cast<int>(state.range(2));
  kernels::Backend& backend = TheBackend();
  const double bytes = 2.0 * inputs * outputs;
  std::vector<std::unique_ptr<kernels::Matrix>> copies;
  for (double used = 0; used < kColdBytes; used += bytes) {
    copies.push_back(RandomMatrix(copies.size(), outputs, inputs));
  }
  const auto x = backend.NewTensor(rows, inputs), y = backend.NewTensor(rows, outputs);
  FillRandom(backend, *x, rows, 1000);
  const auto call = [&](int i) {
    backend.Linear(
        {.rows = rows, .x = x.get(), .w = copies[size_t(i) % copies.size()].get(), .y = y.get()});
  };
  call(0);
  if (!Right(RandomValues(0, int64_t{outputs} * inputs), inputs, *x, *y, rows)) {
    state.SkipWithError("the result is wrong");
    return;
  }
  Report(state, bytes, 2.0 * rows * inputs * outputs, call);
}

BENCHMARK(BM_Gemm)
    ->ArgNames({"inputs", "outputs", "rows"})
    ->ArgsProduct({{1024}, {4096}, {1, 8, 32, 512}})
    ->ArgsProduct({{2048}, {4096}, {1, 2, 4, 8, 16, 32, 64, 128, 512}})
    ->ArgsProduct({{5632}, {2048}, {1, 8, 32, 512}})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace lorad::bench

int main(int argc, char** argv) { return lorad::bench::Main(argc, argv); }
