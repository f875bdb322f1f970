// What the kernel benchmarks share: a backend, random layers, and a report of the best run beside
// the machine's roof.
//
// Environment: LORAD_BENCH_ISA (auto), LORAD_BENCH_THREADS (0: all cores).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "benchmark/benchmark.h"
#include "kernels/backend.h"
#include "tests/bench/kernels/machine_peak.h"

namespace lorad::bench {

// The backend and the machine's peaks with as many threads; made at first use.
kernels::Backend& TheBackend();
const MachinePeak& ThePeak();

// Values in (-1, 1) that bf16 holds exactly.
std::vector<float> RandomValues(uint64_t seed, int64_t count);
// Int8 holds them exactly too.
std::unique_ptr<kernels::Matrix> RandomMatrix(
    uint64_t seed, int rows, int cols, kernels::WeightFormat format = kernels::WeightFormat::kBf16);
// Fills rows [0, rows) of `tensor`.
void FillRandom(kernels::Backend& backend, kernels::Tensor& tensor, int rows, uint64_t seed);

// Times `call(i)` for i = 1, 2, ... and reports of the fastest and the median call: GB/s, GFLOP/s,
// and `roof`, the part of max(bytes / bandwidth, flops / peak) in its time. The fastest is the
// figure to quote: on a shared machine others are noise.
void Report(benchmark::State& state, double bytes, double flops,
            const std::function<void(int)>& call);

// Prints the machine's peaks and runs all benchmarks.
int Main(int argc, char** argv);

}  // namespace lorad::bench
