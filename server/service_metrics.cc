#include "server/service_metrics.h"

#include <algorithm>
#include <vector>

#include "memory/base/error_detail.h"

namespace lorad {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;

const Buckets kLatencyBuckets = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,
                                 .75,  1,    2.5, 5,   7.5, 10,  20,  40, 80,  160};
const Buckets kInterTokenBuckets = {.001, .0025, .005, .0075, .01, .015, .02, .03, .04,
                                    .05,  .075,  .1,   .15,   .2,  .3,   .5,  1,   2.5};
const Buckets kRatioBuckets = {.1, .2, .4, .6, .8, 1, 1.2, 1.5, 2, 3, 5, 10};

// ErrorInfo reasons of requests that were right but had no room or no time.
constexpr const char* kRefusals[] = {
    "QUEUE_FULL",           "TENANT_QUEUE_FULL",     "QUEUE_TOKENS_FULL",  "QUEUE_BYTES_FULL",
    "DEADLINE_UNREACHABLE", "OBJECTIVE_UNREACHABLE", "DEADLINE_TOO_SHORT", "LARGER_THAN_POOL"};

// Whether an end tells of the server: not if the client left, or asked for what cannot be.
bool IsTheServers(absl::StatusCode code) {
  return code != absl::StatusCode::kCancelled && code != absl::StatusCode::kInvalidArgument &&
         code != absl::StatusCode::kNotFound && code != absl::StatusCode::kPermissionDenied;
}

}  // namespace

ServiceMetrics::ServiceMetrics(prometheus::Registry* registry)
    : forecast_ratio_(prometheus::BuildHistogram()
                          .Name("lorad_first_token_forecast_ratio")
                          .Help("Time to first token as it was, over what was foreseen at arrival")
                          .Register(*registry)
                          .Add({}, kRatioBuckets)) {
  const auto histogram = [registry](const char* name, const char* help) {
    return &prometheus::BuildHistogram().Name(name).Help(help).Register(*registry);
  };
  const auto counter = [registry](const char* name, const char* help) {
    return &prometheus::BuildCounter().Name(name).Help(help).Register(*registry);
  };
  auto* ttft =
      histogram("lorad_time_to_first_token_seconds", "From a request's arrival to its first token");
  auto* inter_token =
      histogram("lorad_inter_token_latency_seconds", "Between two tokens of one request");
  auto* offered = counter("lorad_offered_requests_total",
                          "Requests that ended or were refused, but for those that clients gave up "
                          "or got wrong");
  auto* met = counter("lorad_goodput_requests_total",
                      "Of the offered requests, those that finished within the objectives of "
                      "their class");
  auto* met_tokens = counter("lorad_goodput_tokens_total", "Output tokens of these");
  auto* output_tokens =
      counter("lorad_offered_output_tokens_total", "Output tokens of the offered requests");
  for (int i = 0; i < kPriorities; ++i) {
    const auto priority = static_cast<Priority>(i);
    const prometheus::Labels labels = {{"priority", std::string(NameOf(priority))}};
    Of(priority) = {.ttft = &ttft->Add(labels, kLatencyBuckets),
                    .inter_token = &inter_token->Add(labels, kInterTokenBuckets),
                    .offered = &offered->Add(labels),
                    .met = &met->Add(labels),
                    .met_tokens = &met_tokens->Add(labels),
                    .output_tokens = &output_tokens->Add(labels)};
  }
  auto* refusals = counter("lorad_refusals_total",
                           "Requests that were refused for want of room or time, by reason");
  for (const char* reason : kRefusals) refusals_[reason] = &refusals->Add({{"reason", reason}});
}

void ServiceMetrics::OnFirstToken(const GenerationRequest& request, Duration ttft) {
  Of(request.priority).ttft->Observe(Seconds(ttft));
  if (request.foreseen_first_token_s > 0) {
    forecast_ratio_.Observe(Seconds(ttft) / request.foreseen_first_token_s);
  }
}

void ServiceMetrics::OnInterToken(Priority priority, std::span<const double> seconds) {
  // One call a step, whatever the batch: bucket counts first, then the histogram's lock once.
  std::vector<double> increments(kInterTokenBuckets.size() + 1, 0.0);
  double sum = 0;
  for (double s : seconds) {
    const auto at = std::lower_bound(kInterTokenBuckets.begin(), kInterTokenBuckets.end(), s);
    increments[static_cast<size_t>(at - kInterTokenBuckets.begin())] += 1;
    sum += s;
  }
  Of(priority).inter_token->ObserveMultiple(increments, sum);
}

void ServiceMetrics::OnFinish(const GenerationRequest& request, const StreamEnd& end) {
  if (!IsTheServers(end.status.code())) return;
  Class& c = Of(request.priority);
  c.offered->Increment();
  c.output_tokens->Increment(end.usage.output_tokens);
  if (Met(request, end)) {
    c.met->Increment();
    c.met_tokens->Increment(end.usage.output_tokens);
  }
  CountRefusal(end.status);
}

void ServiceMetrics::OnRefused(Priority priority, const absl::Status& status) {
  if (!IsTheServers(status.code())) return;
  Of(priority).offered->Increment();
  CountRefusal(status);
}

// The first token in time, and the others on average. What is scored has its end for a first token.
bool ServiceMetrics::Met(const GenerationRequest& request, const StreamEnd& end) const {
  if (!end.status.ok()) return false;
  const Objective& objective = objectives_[static_cast<size_t>(request.priority)];
  const Duration first = request.score ? end.timings.total : end.timings.first_token;
  if (objective.first_token > Duration::zero() && first > objective.first_token) return false;
  const int gaps = end.usage.output_tokens - 1;
  return objective.inter_token == Duration::zero() || gaps < 1 ||
         end.timings.total - first <= gaps * objective.inter_token;
}

void ServiceMetrics::CountRefusal(const absl::Status& status) {
  if (status.ok()) return;
  const auto counter = refusals_.find(GetErrorDetail(status).reason);
  if (counter != refusals_.end()) counter->second->Increment();
}

}  // namespace lorad
