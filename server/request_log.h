// RequestLog: the observer that the engine has: passes everything on to Metrics and logs one line
// for each request, adapter load and eviction (never one a token).
#pragma once

#include "server/metrics.h"

namespace lorad {

class RequestLog final : public EngineObserver {
 public:
  explicit RequestLog(Metrics* metrics) : metrics_(metrics) {}

  void OnStep(const StepReport& report) override { metrics_->OnStep(report); }
  void OnGauges(const GaugeReport& report) override { metrics_->OnGauges(report); }
  void OnInterToken(std::span<const double> seconds) override { metrics_->OnInterToken(seconds); }
  void OnFirstToken(Duration queue, Duration ttft) override { metrics_->OnFirstToken(queue, ttft); }
  void OnFinish(const GenerationRequest& request, const StreamEnd& end) override;
  void OnAdapterLoad(const AdapterVersion& version, Duration duration,
                     const absl::Status& status) override;
  void OnEvictions(int adapters) override;

  // Any thread.
  void OnRefused(const std::string& request_id, const absl::Status& status);

 private:
  Metrics* const metrics_;
};

}  // namespace lorad
