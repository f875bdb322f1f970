#include "tests/bench/cuda/report.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fmt/format.h"

namespace lorad::bench {

double FractionOfLimit(const Calibration& calibration, const CaseResult& result) {
  if (result.seconds <= 0) return 0;
  const double limit = std::max(result.bytes / (calibration.read_gb_per_s * 1e9),
                                result.flops / (calibration.multiply_tflop_per_s * 1e12));
  return limit / result.seconds;
}

std::string ToTable(const Calibration& calibration, const std::vector<CaseResult>& results) {
  std::string out = fmt::format(
      "read {:.0f} GB/s, copy {:.0f} GB/s, multiply {:.0f} TFLOP/s\n{:<10} {:<44} {:>10} {:>9} "
      "{:>9} {:>9}\n",
      calibration.read_gb_per_s, calibration.copy_gb_per_s, calibration.multiply_tflop_per_s,
      "group", "case", "us", "GB/s", "TFLOP/s", "of limit");
  for (const CaseResult& r : results) {
    if (!r.wrong.empty()) {
      out += fmt::format("{:<10} {:<44} WRONG: {}\n", r.group, r.name, r.wrong);
      continue;
    }
    out += fmt::format("{:<10} {:<44} {:>10.2f} {:>9.0f} {:>9.1f} {:>8.0f}%\n", r.group, r.name,
                       r.seconds * 1e6, r.bytes / r.seconds * 1e-9, r.flops / r.seconds * 1e-12,
                       FractionOfLimit(calibration, r) * 100);
  }
  return out;
}

std::string ToJson(const std::string& device, const Calibration& calibration,
                   const std::vector<CaseResult>& results) {
  nlohmann::json json = {{"device", device},
                         {"read_gb_per_s", calibration.read_gb_per_s},
                         {"copy_gb_per_s", calibration.copy_gb_per_s},
                         {"multiply_tflop_per_s", calibration.multiply_tflop_per_s},
                         {"cases", nlohmann::json::array()}};
  for (const CaseResult& r : results) {
    json["cases"].push_back({{"group", r.group},
                             {"name", r.name},
                             {"us", r.seconds * 1e6},
                             {"bytes", r.bytes},
                             {"flops", r.flops},
                             {"fraction_of_limit", FractionOfLimit(calibration, r)},
                             {"wrong", r.wrong}});
  }
  return json.dump(1) + "\n";
}

}  // namespace lorad::bench
