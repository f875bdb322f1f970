// ServiceMetrics: what requests saw, by priority class: latencies, whether the objectives of the
// class were met (goodput), who was refused and why, and how right the forecasts were. Part of
// Metrics, which says who may call.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <array>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "scheduler/objective.h"
#include "server/request.h"

namespace lorad {

class ServiceMetrics {
 public:
  explicit ServiceMetrics(prometheus::Registry* registry);

  // Before the first request.
  void SetObjectives(const Objectives& objectives) { objectives_ = objectives; }

  void OnFirstToken(const GenerationRequest& request, Duration ttft);
  // Between tokens of requests of a class.
  void OnInterToken(Priority priority, std::span<const double> seconds);
  void OnFinish(const GenerationRequest& request, const StreamEnd& end);
  // Any thread: refused before the engine took it.
  void OnRefused(Priority priority, const absl::Status& status);

 private:
  struct Class {
    prometheus::Histogram* ttft = nullptr;
    prometheus::Histogram* inter_token = nullptr;
    // Requests that the server could answer for, and of them those that met their objectives.
    prometheus::Counter* offered = nullptr;
    prometheus::Counter* met = nullptr;
    prometheus::Counter* met_tokens = nullptr;
    prometheus::Counter* output_tokens = nullptr;
  };
  Class& Of(Priority priority) { return classes_[static_cast<size_t>(priority)]; }
  bool Met(const GenerationRequest& request, const StreamEnd& end) const;
  void CountRefusal(const absl::Status& status);

  Objectives objectives_;
  std::array<Class, kPriorities> classes_;
  std::map<std::string, prometheus::Counter*, std::less<>> refusals_;  // by reason
  prometheus::Histogram& forecast_ratio_;
};

}  // namespace lorad
