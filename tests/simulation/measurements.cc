#include "tests/simulation/measurements.h"

#include <algorithm>
#include <cmath>

namespace lorad::sim {
namespace {

constexpr double kLeastGap = 1e-6;
constexpr double kStep = 1.02;

}  // namespace

void LogHistogram::Add(double seconds) {
  static const double kLogStep = std::log(kStep);
  const double place = std::log(std::max(seconds, kLeastGap) / kLeastGap) / kLogStep;
  const auto at = static_cast<size_t>(place);
  if (at >= counts_.size()) counts_.resize(at + 1, 0);
  ++counts_[at];
  ++count_;
  max_ = std::max(max_, seconds);
}

double LogHistogram::Percentile(double share) const {
  const auto wanted = static_cast<uint64_t>(std::ceil(share * static_cast<double>(count_)));
  uint64_t seen = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    seen += counts_[i];
    if (seen >= wanted && seen > 0) {
      return std::min(max_, kLeastGap * std::pow(kStep, static_cast<double>(i) + 0.5));
    }
  }
  return 0;
}

Measurements::Measurements(size_t requests, int tenants, double window_s)
    : records_(requests), tenants_(tenants), window_s_(window_s) {}

void Measurements::AddService(int tenant, TimePoint when, int prompt_tokens, int output_tokens) {
  const auto window = static_cast<size_t>(SecondsAt(when) / window_s_);
  if (window >= service_.size()) {
    service_.resize(window + 1, std::vector<int64_t>(static_cast<size_t>(tenants_), 0));
    output_by_window_.resize(window + 1, 0);
  }
  service_[window][static_cast<size_t>(tenant)] += prompt_tokens + output_tokens;
  output_by_window_[window] += output_tokens;
  prompt_tokens_ += prompt_tokens;
  output_tokens_ += output_tokens;
}

int64_t Measurements::output_tokens_before(double seconds) const {
  const auto windows =
      std::min(output_by_window_.size(), static_cast<size_t>(std::floor(seconds / window_s_)));
  int64_t tokens = 0;
  for (size_t i = 0; i < windows; ++i) tokens += output_by_window_[i];
  return tokens;
}

}  // namespace lorad::sim
