// Metrics: the engine's reports as Prometheus series, and the HTTP endpoint that serves them. Names
// begin with `lorad_`; units are in the names; no series is labelled by adapter, tenant or request,
// so their number does not grow with use.
//
// The engine's thread calls the observer methods; anyone may read Totals; scrapes run on the
// exposer's thread.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <array>
#include <atomic>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/engine_observer.h"
#include "server/host_tier_report.h"
#include "server/service_metrics.h"

namespace lorad {

// Counters for the Admin service, the same numbers that Prometheus sees.
struct Totals {
  std::atomic<int64_t> requests{0}, finished{0}, rejected{0}, cancelled{0}, failed{0};
  std::atomic<int64_t> prompt_tokens{0}, output_tokens{0}, steps{0}, step_ns{0};
  std::atomic<int64_t> adapter_loads{0}, adapter_evictions{0}, preemptions{0};
  std::atomic<int64_t> cached_tokens{0}, prefix_evictions{0};
};

class Metrics final : public EngineObserver {
 public:
  Metrics();
  ~Metrics() override;

  // Serves /metrics on "host:port" (port 0: any). Returns the port. Unavailable if it cannot be
  // bound.
  absl::StatusOr<int> Serve(const std::string& address);

  void OnStep(const StepReport& report) override;
  void OnGauges(const GaugeReport& report) override;
  void OnInterToken(Priority priority, std::span<const double> seconds) override;
  void OnFirstToken(const GenerationRequest& request, Duration queue, Duration ttft) override;
  void OnFinish(const GenerationRequest& request, const StreamEnd& end) override;
  void OnAdapterLoad(const AdapterVersion& version, Duration duration,
                     const absl::Status& status) override;
  void OnEvictions(int adapters) override;

  // Any thread: a request that was refused before the engine took it.
  void OnRefused(Priority priority, const absl::Status& status);
  // Before the first request.
  void SetObjectives(const Objectives& objectives) { service_.SetObjectives(objectives); }
  void SetStoredAdapters(int n);
  // One call at a time.
  void SetHostTier(const HostTierReport& report);
  void SetInfo(const std::string& version, const std::string& model, const std::string& backend);

  const Totals& totals() const { return totals_; }
  const std::shared_ptr<prometheus::Registry>& registry() const { return registry_; }

 private:
  class Exposer;
  prometheus::Counter& OutcomeCounter(absl::StatusCode code, FinishReason reason);

  std::shared_ptr<prometheus::Registry> registry_;
  Totals totals_;
  ServiceMetrics service_;
  prometheus::Family<prometheus::Counter>& requests_;
  prometheus::Counter& prompt_tokens_;
  prometheus::Counter& output_tokens_;
  prometheus::Counter& preemptions_;
  prometheus::Counter& gave_way_;
  prometheus::Counter& parks_;
  prometheus::Counter& overtakes_;
  prometheus::Counter& evictions_;
  prometheus::Counter& prefix_queried_;
  prometheus::Counter& prefix_hit_;
  prometheus::Counter& prefix_evicted_;
  prometheus::Counter& loads_ok_;
  prometheus::Counter& loads_failed_;
  prometheus::Histogram& queue_;
  prometheus::Histogram& latency_;
  prometheus::Histogram& load_seconds_;
  prometheus::Histogram& step_seconds_;
  prometheus::Histogram& step_tokens_;
  prometheus::Histogram& batch_sequences_;
  prometheus::Histogram& batch_adapters_;
  prometheus::Gauge& running_;
  prometheus::Gauge& waiting_;
  prometheus::Gauge& parked_;
  prometheus::Gauge& pinned_requests_;
  prometheus::Gauge& adapter_drains_;
  prometheus::Gauge& budget_prompt_tokens_;
  prometheus::Gauge& budget_sequences_;
  prometheus::Gauge& tenant_spread_;
  prometheus::Gauge& pages_free_;
  prometheus::Gauge& pages_kv_;
  prometheus::Gauge& pages_kv_cached_;
  prometheus::Gauge& pages_adapter_;
  prometheus::Gauge& pages_loading_;
  prometheus::Gauge& pages_pinned_;
  prometheus::Gauge& waste_kv_;
  prometheus::Gauge& waste_adapter_;
  prometheus::Gauge& adapters_stored_;
  prometheus::Gauge& adapters_loading_;
  prometheus::Gauge& adapters_resident_;
  prometheus::Gauge& adapters_in_use_;
  prometheus::Gauge& adapters_pinned_;
  prometheus::Gauge& host_bytes_;
  prometheus::Gauge& host_capacity_;
  prometheus::Gauge& host_adapters_;
  prometheus::Counter& host_hits_;
  prometheus::Counter& host_misses_;
  prometheus::Counter& host_evictions_;
  std::unique_ptr<Exposer> exposer_;
};

}  // namespace lorad
