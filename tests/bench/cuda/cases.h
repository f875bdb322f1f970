// The cases of the device benchmark. Each checks a sample of its results against what they must be
// and is timed only if they are right.
#pragma once

#include <string>
#include <vector>

#include "tests/bench/cuda/bench_device.h"
#include "tests/bench/cuda/report.h"

namespace lorad::bench {

// One layer of a decoder and its head.
struct ModelShape {
  int hidden = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int ffn = 0;
  int vocab = 0;
};
inline constexpr ModelShape kLlama3_8B{4096, 32, 8, 128, 14336, 128256};
// For smoke runs: every case of the real one, small enough for an emulator.
inline constexpr ModelShape kTiny{128, 4, 2, 32, 192, 300};

struct CaseOptions {
  ModelShape shape = kLlama3_8B;
  std::string filter;  // substring of "group name"; empty: all
};

// Collects results, and prints each as it comes.
class Cases {
 public:
  Cases(BenchDevice& device, const CaseOptions& options) : device_(device), options_(options) {}

  BenchDevice& device() { return device_; }
  const ModelShape& shape() const { return options_.shape; }
  bool Wanted(const std::string& group, const std::string& name) const {
    return (group + " " + name).find(options_.filter) != std::string::npos;
  }
  void Add(CaseResult result);
  const std::vector<CaseResult>& results() const { return results_; }

 private:
  BenchDevice& device_;
  const CaseOptions options_;
  std::vector<CaseResult> results_;
};

Calibration Calibrate(BenchDevice& device);
void AddGemmCases(Cases& cases);
void AddAdapterCases(Cases& cases);
void AddAttentionCases(Cases& cases);
void AddRowCases(Cases& cases);

// Empty, or a description of the first pair that differs by more than `relative` of the largest
// wanted value.
std::string Differs(const std::vector<float>& got, const std::vector<float>& want, double relative);

}  // namespace lorad::bench
