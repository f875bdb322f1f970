// RequestLog: the observer that the engine has: passes everything on to Metrics (and changes of
// residency to those who watch, of requests to the recorder of arrivals) and logs one line for each
// request, adapter load and eviction (never one a token).
#pragma once

#include <functional>
#include <string>
#include <utility>

#include "server/arrival_recorder.h"
#include "server/metrics.h"

namespace lorad {

// What is known of a request that the engine never saw.
struct RefusedRequest {
  std::string request_id;  // the client's or ours
  std::string tenant;
  Priority priority = Priority::kStandard;
};

class RequestLog final : public EngineObserver {
 public:
  // `on_adapter_state`: told as OnAdapterState is, on the engine's thread; may be null.
  // `recorder` is borrowed and may be null.
  explicit RequestLog(Metrics* metrics,
                      std::function<void(const std::string&)> on_adapter_state = nullptr,
                      ArrivalRecorder* recorder = nullptr)
      : metrics_(metrics), on_adapter_state_(std::move(on_adapter_state)), recorder_(recorder) {}

  void OnStep(const StepReport& report) override { metrics_->OnStep(report); }
  void OnGauges(const GaugeReport& report) override { metrics_->OnGauges(report); }
  void OnInterToken(Priority priority, std::span<const double> seconds) override {
    metrics_->OnInterToken(priority, seconds);
  }
  void OnFirstToken(const GenerationRequest& request, Duration queue, Duration ttft) override {
    metrics_->OnFirstToken(request, queue, ttft);
  }
  void OnFinish(const GenerationRequest& request, const StreamEnd& end) override;
  void OnAdapterLoad(const AdapterVersion& version, Duration duration,
                     const absl::Status& status) override;
  void OnEvictions(int adapters) override;
  void OnAdapterState(const std::string& name) override {
    if (on_adapter_state_) on_adapter_state_(name);
  }

  // Any thread.
  void OnRefused(const RefusedRequest& request, const absl::Status& status);

 private:
  Metrics* const metrics_;
  const std::function<void(const std::string&)> on_adapter_state_;
  ArrivalRecorder* const recorder_;
};

}  // namespace lorad
