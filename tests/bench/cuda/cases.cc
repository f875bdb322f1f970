#include "tests/bench/cuda/cases.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include "fmt/format.h"
#include "tests/bench/cuda/calibration.h"

namespace lorad::bench {

void Cases::Add(CaseResult result) {
  fmt::print(stderr, "{} {}: {}\n", result.group, result.name,
             result.wrong.empty() ? fmt::format("{:.2f} us", result.seconds * 1e6)
                                  : "WRONG: " + result.wrong);
  results_.push_back(std::move(result));
}

Calibration Calibrate(BenchDevice& device) {
  // Larger than any cache, and a fresh part each time.
  const size_t part = device.smoke() ? size_t{1} << 14 : size_t{256} << 20;
  constexpr int kParts = 4;
  DeviceBytes memory = device.Allocate(part * kParts);
  DeviceBytes sink = device.Allocate(1 << 20);
  Calibration out;
  const double read = device.Seconds(kParts, [&](kernels::cuda::Launcher& launch, int i) {
    LaunchRead(launch, device.facts(), memory.data() + size_t(i) * part, part, sink.As<uint32_t>());
  });
  out.read_gb_per_s = double(part) / read * 1e-9;
  const double copy = device.Seconds(kParts / 2, [&](kernels::cuda::Launcher& launch, int i) {
    LaunchCopy(launch, device.facts(), memory.data() + size_t(2 * i) * part,
               memory.data() + size_t(2 * i + 1) * part, part);
  });
  out.copy_gb_per_s = 2 * double(part) / copy * 1e-9;
  double flops = 0;
  const double multiply = device.Seconds(4, [&](kernels::cuda::Launcher& launch, int) {
    flops = LaunchMultiply(launch, device.facts(), device.smoke() ? 2 : 4096, sink.As<float>());
  });
  out.multiply_tflop_per_s = flops / multiply * 1e-12;
  return out;
}

std::string Differs(const std::vector<float>& got, const std::vector<float>& want,
                    double relative) {
  if (got.size() != want.size()) return fmt::format("{} values, not {}", got.size(), want.size());
  double largest = 0;
  for (const float v : want) largest = std::max(largest, std::fabs(double{v}));
  for (size_t i = 0; i < want.size(); ++i) {
    const double error = std::fabs(double{got[i]} - double{want[i]});
    if (!(error <= relative * largest)) {
      return fmt::format("value {} is {}, not {}", i, got[i], want[i]);
    }
  }
  return "";
}

}  // namespace lorad::bench
