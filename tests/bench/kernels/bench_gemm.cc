// y = x W^T with cold weights, as a model runs it: the calls go round more than 256 MB of matrices.
// BM_Gemm reports bf16 weights against the machine's roof, BM_Int8 int8 weights against bf16 ones.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
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

// One shape with weights of one format.
class Layer {
 public:
  Layer(const benchmark::State& state, kernels::WeightFormat format)
      : inputs_(static_cast<int>(state.range(0))),
        outputs_(static_cast<int>(state.range(1))),
        rows_(static_cast<int>(state.range(2))),
        bytes_((format == kernels::WeightFormat::kInt8 ? 1.0 : 2.0) * inputs_ * outputs_),
        x_(TheBackend().NewTensor(rows_, inputs_)),
        y_(TheBackend().NewTensor(rows_, outputs_)) {
    for (double used = 0; used < kColdBytes; used += bytes_) {
      copies_.push_back(RandomMatrix(copies_.size(), outputs_, inputs_, format));
    }
    FillRandom(TheBackend(), *x_, rows_, 1000);
  }

  double bytes() const { return bytes_; }
  double flops() const { return 2.0 * rows_ * inputs_ * outputs_; }
  void Run(int i) {
    TheBackend().Linear({.rows = rows_,
                         .x = x_.get(),
                         .w = copies_[size_t(i) % copies_.size()].get(),
                         .y = y_.get()});
  }
  bool IsRight() {
    Run(0);
    return Right(RandomValues(0, int64_t{outputs_} * inputs_), inputs_, *x_, *y_, rows_);
  }

 private:
  const int inputs_;
  const int outputs_;
  const int rows_;
  const double bytes_;  // of the weights
  std::vector<std::unique_ptr<kernels::Matrix>> copies_;
  std::unique_ptr<kernels::Tensor> x_;
  std::unique_ptr<kernels::Tensor> y_;
};

void BM_Gemm(benchmark::State& state) {
  Layer layer(state, kernels::WeightFormat::kBf16);
  if (!layer.IsRight()) return state.SkipWithError("the result is wrong");
  Report(state, layer.bytes(), layer.flops(), [&](int i) { layer.Run(i); });
}

// Calls of both formats take turns, so that another process on the machine slows both.
void BM_Int8(benchmark::State& state) {
  Layer bf16(state, kernels::WeightFormat::kBf16), int8(state, kernels::WeightFormat::kInt8);
  if (!bf16.IsRight() || !int8.IsRight()) return state.SkipWithError("the result is wrong");
  const auto seconds = [](Layer& layer, int i) {
    const auto begin = std::chrono::steady_clock::now();
    layer.Run(i);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  std::vector<double> of_bf16, of_int8;
  int i = 1;
  for (auto _ : state) {
    of_bf16.push_back(seconds(bf16, i));
    of_int8.push_back(seconds(int8, i++));
    state.SetIterationTime(of_int8.back());
  }
  const auto best = [](const std::vector<double>& all) { return *std::ranges::min_element(all); };
  const auto median = [](std::vector<double>& all) {
    std::ranges::sort(all);
    return all[all.size() / 2];
  };
  state.counters["bf16_us"] = best(of_bf16) * 1e6;
  state.counters["int8_us"] = best(of_int8) * 1e6;
  state.counters["speedup"] = best(of_bf16) / best(of_int8);
  state.counters["speedup_median"] = median(of_bf16) / median(of_int8);
}

BENCHMARK(BM_Gemm)
    ->ArgNames({"inputs", "outputs", "rows"})
    ->ArgsProduct({{1024}, {4096}, {1, 8, 32, 512}})
    ->ArgsProduct({{2048}, {4096}, {1, 2, 4, 8, 16, 32, 64, 128, 512}})
    ->ArgsProduct({{5632}, {2048}, {1, 8, 32, 512}})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

BENCHMARK(BM_Int8)
    ->ArgNames({"inputs", "outputs", "rows"})
    ->ArgsProduct({{2048}, {4096}, {1, 2, 4, 8, 16, 32, 64, 128, 512}})
    ->ArgsProduct({{4096}, {14336}, {1, 8, 32}})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace lorad::bench

int main(int argc, char** argv) { return lorad::bench::Main(argc, argv); }
