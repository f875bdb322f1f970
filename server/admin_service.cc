#include "server/admin_service.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "memory/base/error_detail.h"
#include "server/reply.h"

namespace lorad {
namespace {

constexpr int kDefaultPoolRows = 100;
constexpr int kMaxPoolRows = 10000;
constexpr auto kDrainPoll = std::chrono::milliseconds(20);

}  // namespace

grpc::ServerUnaryReactor* AdminService::GetModel(grpc::CallbackServerContext* context,
                                                 const v1::GetModelRequest*, v1::Model* response) {
  *response = parts_.model;
  return FinishNow(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* AdminService::GetPool(grpc::CallbackServerContext* context,
                                                const v1::GetPoolRequest* request,
                                                v1::Pool* response) {
  if (request->max_adapters() < 0 || request->max_adapters() > kMaxPoolRows) {
    return FinishNow(context, InvalidField("max_adapters", "must be in [0, 10000]"));
  }
  EngineSnapshot snapshot = parts_.engine->Snapshot();
  const GaugeReport& gauges = snapshot.gauges;
  response->set_total_pages(gauges.pages_total);
  response->set_free_pages(gauges.pages_free);
  response->set_kv_pages(gauges.pages_kv);
  response->set_adapter_pages(gauges.pages_adapter);
  response->set_page_bytes(static_cast<int64_t>(parts_.page_bytes));
  response->set_page_tokens(parts_.page_tokens);
  std::sort(snapshot.adapters.begin(), snapshot.adapters.end(), [](const auto& a, const auto& b) {
    return a.idle != b.idle ? a.idle < b.idle : a.id < b.id;
  });
  const auto now = std::chrono::system_clock::now();
  int64_t idle_pages = 0;
  const int rows = request->max_adapters() == 0 ? kDefaultPoolRows : request->max_adapters();
  for (const auto& adapter : snapshot.adapters) {
    const bool loading = adapter.state == AdapterState::kLoading;
    if (!loading && adapter.running == 0) idle_pages += adapter.pages;
    if (response->adapters_size() == rows) continue;
    auto* row = response->add_adapters();
    row->set_name("adapters/" + adapter.name);
    row->set_version(adapter.version);
    row->set_pages(adapter.pages);
    row->set_loading(loading);
    row->set_running_requests(adapter.running);
    SetTimestamp(now - std::chrono::duration_cast<std::chrono::milliseconds>(adapter.idle),
                 row->mutable_last_use_time());
  }
  response->set_adapter_idle_pages(idle_pages);
  response->set_adapter_count(static_cast<int32_t>(snapshot.adapters.size()));
  return FinishNow(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* AdminService::GetStats(grpc::CallbackServerContext* context,
                                                 const v1::GetStatsRequest*, v1::Stats* response) {
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
  response->set_completion_tokens_total(totals.output_tokens);
  response->set_steps_total(totals.steps);
  SetDuration(std::chrono::nanoseconds(totals.step_ns), response->mutable_step_time_total());
  response->set_adapter_loads_total(totals.adapter_loads);
  response->set_adapter_evictions_total(totals.adapter_evictions);
  response->set_preemptions_total(totals.preemptions);
  response->set_stored_adapters(static_cast<int32_t>(parts_.catalog->List().size()));
  return FinishNow(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* AdminService::Drain(grpc::CallbackServerContext* context,
                                              const v1::DrainRequest* request,
                                              v1::DrainResponse* response) {
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
