#include "server/metrics.h"

#include <fmt/format.h>
#include <prometheus/exposer.h>

#include <algorithm>
#include <exception>
#include <vector>

namespace lorad {
namespace {

using prometheus::Histogram;
using Buckets = Histogram::BucketBoundaries;

const Buckets kLatencyBuckets = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,
                                 .75,  1,    2.5, 5,   7.5, 10,  20,  40, 80,  160};
const Buckets kInterTokenBuckets = {.001, .0025, .005, .0075, .01, .015, .02, .03, .04,
                                    .05,  .075,  .1,   .15,   .2,  .3,   .5,  1,   2.5};
const Buckets kLoadBuckets = {.001, .002, .004, .008, .016, .032, .064, .128,
                              .256, .512, 1,    2,    4,    8,    16,   32};
const Buckets kCountBuckets = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};

Histogram& MakeHistogram(prometheus::Registry& registry, const char* name, const char* help,
                         const Buckets& buckets) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, buckets);
}

prometheus::Counter& MakeCounter(prometheus::Registry& registry, const char* name, const char* help,
                                 const prometheus::Labels& labels = {}) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(labels);
}

prometheus::Gauge& MakeGauge(prometheus::Registry& registry, const char* name, const char* help,
                             const prometheus::Labels& labels = {}) {
  // Register returns the family that is already there if it is the same.
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(labels);
}

const char* Outcome(absl::StatusCode code, FinishReason reason) {
  switch (code) {
    case absl::StatusCode::kOk:
      return reason == FinishReason::kStopToken    ? "stop_token"
             : reason == FinishReason::kStopString ? "stop_string"
             : reason == FinishReason::kScored     ? "scored"
                                                   : "length";
    case absl::StatusCode::kCancelled:
      return "cancelled";
    case absl::StatusCode::kDeadlineExceeded:
      return "deadline";
    case absl::StatusCode::kInvalidArgument:
      return "invalid";
    case absl::StatusCode::kNotFound:
      return "not_found";
    case absl::StatusCode::kResourceExhausted:
      return "exhausted";
    case absl::StatusCode::kUnavailable:
      return "unavailable";
    default:
      return "error";
  }
}

constexpr char kPagesName[] = "lorad_pool_pages";
constexpr char kPagesHelp[] = "Pages of the pool by use";
constexpr char kWasteName[] = "lorad_pool_waste_bytes";
constexpr char kWasteHelp[] =
    "Bytes of pages in use that hold nothing: slots without a token, ends of adapter images";
constexpr char kAdaptersName[] = "lorad_adapters";
constexpr char kAdaptersHelp[] =
    "Adapters by state; stored counts all, resident includes those in use and those pinned";
constexpr char kPreemptionsName[] = "lorad_preemptions_total";
constexpr char kPreemptionsHelp[] =
    "Running sequences that gave up their places; they go on from what is left of their pages";
constexpr char kLoadsName[] = "lorad_adapter_loads_total";
constexpr char kLoadsHelp[] = "Adapter loads into the pool by outcome";

}  // namespace

class Metrics::Exposer {
 public:
  explicit Exposer(const std::string& address) : exposer_(address, 1) {}
  prometheus::Exposer exposer_;
};

Metrics::Metrics()
    : registry_(
          std::make_shared<prometheus::Registry>(prometheus::Registry::InsertBehavior::Merge)),
      service_(registry_.get()),
      requests_(prometheus::BuildCounter()
                    .Name("lorad_requests_total")
                    .Help("Requests that ended, by outcome")
                    .Register(*registry_)),
      prompt_tokens_(MakeCounter(*registry_, "lorad_prompt_tokens_total",
                                 "Prompt tokens of requests that ended")),
      output_tokens_(MakeCounter(*registry_, "lorad_output_tokens_total", "Tokens generated")),
      preemptions_(
          MakeCounter(*registry_, kPreemptionsName, kPreemptionsHelp, {{"reason", "pages"}})),
      gave_way_(
          MakeCounter(*registry_, kPreemptionsName, kPreemptionsHelp, {{"reason", "priority"}})),
      parks_(
          MakeCounter(*registry_, kPreemptionsName, kPreemptionsHelp, {{"reason", "slow_reader"}})),
      overtakes_(MakeCounter(*registry_, "lorad_request_overtakes_total",
                             "Waiting requests that could not run yet, for each that was "
                             "admitted before one of them")),
      evictions_(MakeCounter(*registry_, "lorad_adapter_evictions_total",
                             "Idle adapters evicted from the pool")),
      prefix_queried_(MakeCounter(*registry_, "lorad_prefix_cache_queried_tokens_total",
                                  "Prompt tokens that the prefix cache was asked for")),
      prefix_hit_(MakeCounter(*registry_, "lorad_prefix_cache_hit_tokens_total",
                              "Of those, tokens that it had and that were not computed")),
      prefix_evicted_(MakeCounter(*registry_, "lorad_prefix_cache_evicted_pages_total",
                                  "Pages of the prefix cache that made room for something else")),
      loads_ok_(prometheus::BuildCounter()
                    .Name(kLoadsName)
                    .Help(kLoadsHelp)
                    .Register(*registry_)
                    .Add({{"outcome", "ok"}})),
      loads_failed_(prometheus::BuildCounter()
                        .Name(kLoadsName)
                        .Help(kLoadsHelp)
                        .Register(*registry_)
                        .Add({{"outcome", "failed"}})),
      queue_(MakeHistogram(*registry_, "lorad_queue_time_seconds",
                           "From a request's arrival to its first place in a batch",
                           kLatencyBuckets)),
      latency_(MakeHistogram(*registry_, "lorad_request_latency_seconds",
                             "From a request's arrival to its end", kLatencyBuckets)),
      load_seconds_(MakeHistogram(*registry_, "lorad_adapter_load_seconds",
                                  "From the start of an adapter's load to its being resident",
                                  kLoadBuckets)),
      step_seconds_(MakeHistogram(*registry_, "lorad_step_seconds", "One step of the engine",
                                  kInterTokenBuckets)),
      step_tokens_(MakeHistogram(*registry_, "lorad_step_tokens", "Tokens computed in one step",
                                 kCountBuckets)),
      batch_sequences_(MakeHistogram(*registry_, "lorad_batch_sequences",
                                     "Sequences that run in one step", kCountBuckets)),
      batch_adapters_(MakeHistogram(*registry_, "lorad_batch_adapters",
                                    "Distinct adapters that run in one step", kCountBuckets)),
      running_(MakeGauge(*registry_, "lorad_requests_running", "Requests in the batch")),
      waiting_(MakeGauge(*registry_, "lorad_requests_waiting", "Requests in the queue")),
      parked_(MakeGauge(*registry_, "lorad_requests_parked",
                        "Requests that lost their places because their readers are slow, until "
                        "these have caught up")),
      pinned_requests_(MakeGauge(*registry_, "lorad_requests_pinned",
                                 "Waiting requests that were overtaken so often or long that room "
                                 "is made for them")),
      adapter_drains_(MakeGauge(*registry_, "lorad_adapter_draining",
                                "Whether an adapter in use is drained to make room for a pinned "
                                "request: 1 or 0")),
      budget_prompt_tokens_(MakeGauge(*registry_, "lorad_step_budget_prompt_tokens",
                                      "Prompt tokens that a step may hold now: less than "
                                      "configured where an objective between tokens asks for it")),
      budget_sequences_(MakeGauge(*registry_, "lorad_step_budget_sequences",
                                  "Sequences that may run now: less than configured where an "
                                  "objective between tokens asks for it")),
      tenant_spread_(MakeGauge(*registry_, "lorad_tenant_spread_tokens",
                               "Greatest less least weighted service of the tenants with "
                               "unfinished requests, in the class where that is most")),
      pages_free_(MakeGauge(*registry_, kPagesName, kPagesHelp, {{"use", "free"}})),
      pages_kv_(MakeGauge(*registry_, kPagesName, kPagesHelp, {{"use", "kv"}})),
      pages_kv_cached_(MakeGauge(*registry_, kPagesName, kPagesHelp, {{"use", "kv_cached"}})),
      pages_adapter_(MakeGauge(*registry_, kPagesName, kPagesHelp, {{"use", "adapter"}})),
      pages_loading_(MakeGauge(*registry_, kPagesName, kPagesHelp, {{"use", "loading"}})),
      pages_pinned_(MakeGauge(*registry_, "lorad_pool_pages_pinned",
                              "Of the pages of adapters, those of pinned ones")),
      waste_kv_(MakeGauge(*registry_, kWasteName, kWasteHelp, {{"use", "kv"}})),
      waste_adapter_(MakeGauge(*registry_, kWasteName, kWasteHelp, {{"use", "adapter"}})),
      adapters_stored_(MakeGauge(*registry_, kAdaptersName, kAdaptersHelp, {{"state", "stored"}})),
      adapters_loading_(
          MakeGauge(*registry_, kAdaptersName, kAdaptersHelp, {{"state", "loading"}})),
      adapters_resident_(
          MakeGauge(*registry_, kAdaptersName, kAdaptersHelp, {{"state", "resident"}})),
      adapters_in_use_(MakeGauge(*registry_, kAdaptersName, kAdaptersHelp, {{"state", "in_use"}})),
      adapters_pinned_(MakeGauge(*registry_, kAdaptersName, kAdaptersHelp, {{"state", "pinned"}})),
      host_bytes_(MakeGauge(*registry_, "lorad_host_tier_bytes",
                            "Bytes of adapter images in host memory, beside the pool")),
      host_capacity_(MakeGauge(*registry_, "lorad_host_tier_capacity_bytes",
                               "Host memory set aside for them")),
      host_adapters_(MakeGauge(*registry_, "lorad_host_tier_adapters", "Adapters in it")),
      host_hits_(MakeCounter(*registry_, "lorad_host_tier_hits_total",
                             "Adapter loads that found their image in host memory")),
      host_misses_(MakeCounter(*registry_, "lorad_host_tier_misses_total",
                               "Adapter loads that read their image from disk")),
      host_evictions_(MakeCounter(*registry_, "lorad_host_tier_evictions_total",
                                  "Images that left host memory to make room for others")) {
  for (auto code : {absl::StatusCode::kCancelled, absl::StatusCode::kDeadlineExceeded,
                    absl::StatusCode::kInvalidArgument, absl::StatusCode::kNotFound,
                    absl::StatusCode::kResourceExhausted, absl::StatusCode::kUnavailable,
                    absl::StatusCode::kInternal}) {
    OutcomeCounter(code, FinishReason::kLength);  // series exist before their first event
  }
  for (auto reason : {FinishReason::kStopToken, FinishReason::kStopString, FinishReason::kLength,
                      FinishReason::kScored}) {
    OutcomeCounter(absl::StatusCode::kOk, reason);
  }
}

Metrics::~Metrics() = default;

absl::StatusOr<int> Metrics::Serve(const std::string& address) {
  try {
    exposer_ = std::make_unique<Exposer>(address);
    exposer_->exposer_.RegisterCollectable(registry_);
    return exposer_->exposer_.GetListeningPorts().at(0);
  } catch (const std::exception& e) {
    return absl::UnavailableError(
        fmt::format("metrics: cannot listen on {}: {}", address, e.what()));
  }
}

prometheus::Counter& Metrics::OutcomeCounter(absl::StatusCode code, FinishReason reason) {
  return requests_.Add({{"outcome", Outcome(code, reason)}});
}

void Metrics::OnStep(const StepReport& report) {
  step_seconds_.Observe(Seconds(report.plan + report.execute));
  step_tokens_.Observe(report.prefill_tokens + report.decode_tokens);
  batch_sequences_.Observe(report.sequences);
  batch_adapters_.Observe(report.adapters);
  output_tokens_.Increment(report.sampled_tokens);
  preemptions_.Increment(report.preemptions);
  gave_way_.Increment(report.gave_way);
  parks_.Increment(report.parked);
  overtakes_.Increment(report.overtakes);
  prefix_queried_.Increment(report.queried_tokens);
  prefix_hit_.Increment(report.cached_tokens);
  prefix_evicted_.Increment(report.prefix_evictions);
  totals_.cached_tokens += report.cached_tokens;
  totals_.prefix_evictions += report.prefix_evictions;
  totals_.output_tokens += report.sampled_tokens;
  totals_.preemptions += report.preemptions + report.gave_way + report.parked;
  totals_.steps += 1;
  totals_.step_ns += (report.plan + report.execute).count();
}

void Metrics::OnGauges(const GaugeReport& report) {
  running_.Set(report.running);
  waiting_.Set(report.waiting);
  parked_.Set(report.parked);
  pinned_requests_.Set(report.pinned_requests);
  adapter_drains_.Set(report.adapter_drains ? 1 : 0);
  budget_prompt_tokens_.Set(report.budget.prompt_tokens);
  budget_sequences_.Set(report.budget.sequences);
  tenant_spread_.Set(report.tenant_spread);
  pages_free_.Set(report.pages_free);
  pages_kv_.Set(report.pages_kv);
  pages_kv_cached_.Set(report.pages_kv_cached);
  pages_adapter_.Set(report.pages_adapter);
  pages_loading_.Set(report.pages_loading);
  pages_pinned_.Set(report.pages_adapter_pinned);
  waste_kv_.Set(static_cast<double>(report.waste_kv_bytes));
  waste_adapter_.Set(static_cast<double>(report.waste_adapter_bytes));
  adapters_loading_.Set(report.adapters_loading);
  adapters_resident_.Set(report.adapters_resident);
  adapters_in_use_.Set(report.adapters_in_use);
  adapters_pinned_.Set(report.adapters_pinned);
}

void Metrics::OnInterToken(Priority priority, std::span<const double> seconds) {
  service_.OnInterToken(priority, seconds);
}

void Metrics::OnFirstToken(const GenerationRequest& request, Duration queue, Duration ttft) {
  queue_.Observe(Seconds(queue));
  service_.OnFirstToken(request, ttft);
}

void Metrics::OnFinish(const GenerationRequest& request, const StreamEnd& end) {
  service_.OnFinish(request, end);
  OutcomeCounter(end.status.code(), end.reason).Increment();
  latency_.Observe(Seconds(end.timings.total));
  prompt_tokens_.Increment(end.usage.prompt_tokens);
  totals_.requests += 1;
  totals_.prompt_tokens += end.usage.prompt_tokens;
  switch (end.status.code()) {
    case absl::StatusCode::kOk:
      totals_.finished += 1;
      break;
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kDeadlineExceeded:
      totals_.cancelled += 1;
      break;
    default:
      totals_.failed += 1;
  }
}

void Metrics::OnAdapterLoad(const AdapterVersion&, Duration duration, const absl::Status& status) {
  if (status.ok()) {
    loads_ok_.Increment();
    load_seconds_.Observe(Seconds(duration));
    totals_.adapter_loads += 1;
  } else {
    loads_failed_.Increment();
  }
}

void Metrics::OnEvictions(int adapters) {
  evictions_.Increment(adapters);
  totals_.adapter_evictions += adapters;
}

void Metrics::OnRefused(Priority priority, const absl::Status& status) {
  service_.OnRefused(priority, status);
  OutcomeCounter(status.code(), FinishReason::kLength).Increment();
  totals_.requests += 1;
  totals_.rejected += 1;
}

void Metrics::SetStoredAdapters(int n) { adapters_stored_.Set(n); }

void Metrics::SetHostTier(const HostTierReport& report) {
  host_bytes_.Set(static_cast<double>(report.bytes));
  host_capacity_.Set(static_cast<double>(report.capacity_bytes));
  host_adapters_.Set(report.adapters);
  const auto raise = [](prometheus::Counter& counter, uint64_t to) {
    counter.Increment(static_cast<double>(to) - counter.Value());
  };
  raise(host_hits_, report.hits);
  raise(host_misses_, report.misses);
  raise(host_evictions_, report.evictions);
}

void Metrics::SetInfo(const std::string& version, const std::string& model,
                      const std::string& backend) {
  MakeGauge(*registry_, "lorad_build_info", "Always 1; what runs here, in labels",
            {{"version", version}, {"model", model}, {"backend", backend}})
      .Set(1);
}

}  // namespace lorad
