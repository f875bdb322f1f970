#include "server/admin_service.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "server/caller.h"
#include "server/pool_fit.h"
#include "server/pool_reply.h"
#include "server/reply.h"

namespace lorad {
namespace {

constexpr int kDefaultPoolRows = 100;
constexpr int kMaxPoolRows = 10000;
constexpr auto kDrainPoll = std::chrono::milliseconds(20);

}  // namespace

grpc::ServerUnaryReactor* AdminService::GetModel(grpc::CallbackServerContext* context,
                                                 const v1::GetModelRequest*, v1::Model* response) {
  const auto caller = CallerOf(*context);
  if (caller.ok()) *response = parts_.model;
  return FinishNow(context, caller.status());
}

grpc::ServerUnaryReactor* AdminService::GetPool(grpc::CallbackServerContext* context,
                                                const v1::GetPoolRequest* request,
                                                v1::Pool* response) {
  if (const absl::Status s = CheckOperator(*context); !s.ok()) return FinishNow(context, s);
  if (request->max_adapters() < 0 || request->max_adapters() > kMaxPoolRows) {
    return FinishNow(context, InvalidField("max_adapters", "must be in [0, 10000]"));
  }
  const int rows = request->max_adapters() == 0 ? kDefaultPoolRows : request->max_adapters();
  FillPool(parts_.engine->Snapshot(),
           {.page_bytes = parts_.page_bytes, .page_tokens = parts_.page_tokens}, rows,
           std::chrono::system_clock::now(), response);
  if (parts_.staging != nullptr) FillHostTier(parts_.staging->report(), response);
  return FinishNow(context, absl::OkStatus());
}

absl::Status AdminService::FillFit(const v1::GetFitRequest& request, v1::Fit* response) const {
  const int longest = parts_.model.max_context_tokens();
  const int tokens = request.sequence_tokens() == 0 ? longest : request.sequence_tokens();
  if (tokens < 0 || tokens > longest) {
    return InvalidField("sequence_tokens", fmt::format("must be in [0, {}]", longest));
  }
  const GaugeReport pool = parts_.engine->Snapshot().gauges;
  if (request.rank() != 0) {
    const std::vector<std::string> modules(request.target_modules().begin(),
                                           request.target_modules().end());
    LORAD_ASSIGN_OR_RETURN(const AdapterImage image,
                           parts_.images->PlanFor(request.rank(), modules));
    const PoolFit fit = FitOf(image.pages(), pool);
    response->set_adapter_pages(image.pages());
    response->set_adapter_image_bytes(static_cast<int64_t>(image.bytes()));
    response->set_adapters_in_free_pages(fit.in_free_pages);
    response->set_adapters_in_available_pages(fit.in_available_pages);
    response->set_adapters_in_pool(fit.in_pool);
  }
  const int pages = (tokens + parts_.page_tokens - 1) / parts_.page_tokens;
  const PoolFit fit = FitOf(pages, pool);
  response->set_sequence_pages(pages);
  response->set_sequences_in_free_pages(fit.in_free_pages);
  response->set_sequences_in_available_pages(fit.in_available_pages);
  response->set_sequences_in_pool(fit.in_pool);
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* AdminService::GetFit(grpc::CallbackServerContext* context,
                                               const v1::GetFitRequest* request,
                                               v1::Fit* response) {
  const auto caller = CallerOf(*context);
  if (!caller.ok()) return FinishNow(context, caller.status());
  return FinishNow(context, FillFit(*request, response));
}

grpc::ServerUnaryReactor* AdminService::ListTenants(grpc::CallbackServerContext* context,
                                                    const v1::ListTenantsRequest*,
                                                    v1::ListTenantsResponse* response) {
  if (const absl::Status s = CheckOperator(*context); !s.ok()) return FinishNow(context, s);
  const TenantTable& table = parts_.catalog->tenants();
  std::map<std::string, StoreUsage> tenants = parts_.catalog->store().UsageByOwner();
  tenants.erase("");  // public adapters are nobody's
  for (const auto& [name, limits] : table.named()) tenants.try_emplace(name);
  for (const auto& [name, usage] : tenants) {
    const TenantLimits& limits = table.Of(name);
    v1::Tenant* row = response->add_tenants();
    row->set_name(name);
    row->set_adapters(static_cast<int32_t>(usage.adapters));
    row->set_stored_bytes(usage.bytes);
    row->set_max_adapters(static_cast<int32_t>(limits.max_adapters));
    row->set_max_stored_bytes(limits.max_bytes);
    row->set_default_adapter(limits.default_adapter);
    row->set_weight(limits.weight);
  }
  return FinishNow(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* AdminService::GetStats(grpc::CallbackServerContext* context,
                                                 const v1::GetStatsRequest*, v1::Stats* response) {
  if (const absl::Status s = CheckOperator(*context); !s.ok()) return FinishNow(context, s);
  const EngineSnapshot snapshot = parts_.engine->Snapshot();
  const Totals& totals = parts_.metrics->totals();
  SetDuration(std::chrono::system_clock::now() - parts_.start, response->mutable_uptime());
  response->set_draining(snapshot.draining);
  response->set_running_requests(snapshot.gauges.running);
  response->set_waiting_requests(snapshot.gauges.waiting);
  response->set_running_adapters(static_cast<int32_t>(snapshot.gauges.adapters_in_use));
  response->set_requests_total(totals.requests);
  response->set_finished_total(totals.finished);
  response->set_rejected_total(totals.rejected);
  response->set_cancelled_total(totals.cancelled);
  response->set_failed_total(totals.failed);
  response->set_prompt_tokens_total(totals.prompt_tokens);
  response->set_cached_tokens_total(totals.cached_tokens);
  response->set_completion_tokens_total(totals.output_tokens);
  response->set_steps_total(totals.steps);
  SetDuration(std::chrono::nanoseconds(totals.step_ns), response->mutable_step_time_total());
  response->set_adapter_loads_total(totals.adapter_loads);
  response->set_adapter_evictions_total(totals.adapter_evictions);
  response->set_preemptions_total(totals.preemptions);
  response->set_prefix_evictions_total(totals.prefix_evictions);
  response->set_stored_adapters(parts_.catalog->Count(""));
  return FinishNow(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* AdminService::Drain(grpc::CallbackServerContext* context,
                                              const v1::DrainRequest* request,
                                              v1::DrainResponse* response) {
  if (const absl::Status s = CheckOperator(*context); !s.ok()) return FinishNow(context, s);
  auto until = context->deadline();
  if (request->has_timeout()) {
    if (request->timeout().seconds() < 0 || request->timeout().seconds() > 86400) {
      return FinishNow(context, InvalidField("timeout", "must be between 0 and one day"));
    }
    until = std::min(until, std::chrono::system_clock::now() +
                                std::chrono::seconds(request->timeout().seconds()) +
                                std::chrono::milliseconds(request->timeout().nanos() / 1000000));
  }
  const int before = parts_.engine->unfinished();
  parts_.engine->BeginDrain();
  if (parts_.on_drain) parts_.on_drain();
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  parts_.work->Post([this, context, reactor, response, until, before] {
    // Answers a little before the caller's deadline, so that the answer arrives.
    while (!parts_.engine->idle() && !context->IsCancelled() &&
           std::chrono::system_clock::now() + 2 * kDrainPoll < until) {
      std::this_thread::sleep_for(kDrainPoll);
    }
    const int left = parts_.engine->unfinished();
    response->set_finished_requests(std::max(0, before - left));
    response->set_remaining_requests(left);
    reactor->Finish(grpc::Status::OK);
  });
  return reactor;
}

}  // namespace lorad
