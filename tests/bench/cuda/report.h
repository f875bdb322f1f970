// What the device benchmark prints: one line a case, as a table and as JSON, with the fraction of
// what the device was measured to be able to do.
#pragma once

#include <string>
#include <vector>

namespace lorad::bench {

// Measured first, in the same process.
struct Calibration {
  double read_gb_per_s = 0;
  double copy_gb_per_s = 0;         // read and written bytes together
  double multiply_tflop_per_s = 0;  // mma.sync m16n8k16, bf16
};

struct CaseResult {
  std::string group;  // gemm, adapter, attention, rows, sample
  std::string name;
  double seconds = 0;
  double bytes = 0;   // that must move at least
  double flops = 0;   // that must be computed
  std::string wrong;  // what is wrong with its results; empty: nothing, and only then is it timed
};

// The part of the limit max(bytes / read bandwidth, flops / multiply rate) in the time it took.
double FractionOfLimit(const Calibration& calibration, const CaseResult& result);
std::string ToTable(const Calibration& calibration, const std::vector<CaseResult>& results);
std::string ToJson(const std::string& device, const Calibration& calibration,
                   const std::vector<CaseResult>& results);

}  // namespace lorad::bench
