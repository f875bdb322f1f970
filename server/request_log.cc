#include "server/request_log.h"

#include "memory/base/error_detail.h"
#include "server/log.h"

namespace lorad {

void RequestLog::OnFinish(const GenerationRequest& request, const StreamEnd& end) {
  metrics_->OnFinish(request, end);
  if (recorder_ != nullptr) recorder_->End(recorder_->Begin(request), end);
  const std::string adapter =
      request.adapters.empty() ? std::string() : request.adapters[0].version->name;
  const int64_t version = request.adapters.empty() ? 0 : request.adapters[0].version->version;
  Log(end.status.ok() ? LogLevel::kInfo : LogLevel::kWarn, "request ended",
      {{"request_id", request.request_id},
       {"tenant", request.tenant},
       {"adapter", adapter},
       {"adapter_version", version},
       {"status", absl::StatusCodeToString(end.status.code())},
       {"prompt_tokens", end.usage.prompt_tokens},
       {"cached_tokens", end.usage.cached_tokens},
       {"output_tokens", end.usage.output_tokens},
       {"queue_s", Seconds(end.timings.queue)},
       {"ttft_s", Seconds(end.timings.first_token)},
       {"total_s", Seconds(end.timings.total)},
       {"preemptions", end.timings.preemptions}});
}

void RequestLog::OnAdapterLoad(const AdapterVersion& version, Duration duration,
                               const absl::Status& status) {
  metrics_->OnAdapterLoad(version, duration, status);
  Log(status.ok() ? LogLevel::kInfo : LogLevel::kError, "adapter load",
      {{"adapter", version.name},
       {"adapter_version", version.version},
       {"pages", version.pages},
       {"seconds", Seconds(duration)},
       {"status", status.ok() ? std::string("OK") : std::string(status.message())}});
}

void RequestLog::OnEvictions(int adapters) {
  metrics_->OnEvictions(adapters);
  Log(LogLevel::kDebug, "adapters evicted", {{"adapters", adapters}});
}

void RequestLog::OnRefused(const RefusedRequest& request, const absl::Status& status) {
  metrics_->OnRefused(request.priority, status);
  Log(LogLevel::kInfo, "request refused",
      {{"request_id", request.request_id},
       {"tenant", request.tenant},
       {"status", absl::StatusCodeToString(status.code())},
       {"reason", GetErrorDetail(status).reason}});
}

}  // namespace lorad
