#include "client/error.h"

#include <fmt/format.h>
#include <google/protobuf/util/time_util.h>

#include "absl/strings/cord.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/error_info.pb.h"
#include "google/rpc/status.pb.h"

namespace lorad {
namespace {

void Decode(const google::protobuf::Any& any, ErrorDetails* details) {
  if (google::rpc::ErrorInfo info; any.UnpackTo(&info)) {
    details->reason = info.reason();
    details->domain = info.domain();
  } else if (google::rpc::BadRequest bad; any.UnpackTo(&bad)) {
    for (const auto& violation : bad.field_violations()) {
      details->fields.push_back({violation.field(), violation.description()});
    }
  } else if (google::rpc::RetryInfo retry; any.UnpackTo(&retry)) {
    details->retry_after = std::chrono::milliseconds(
        google::protobuf::util::TimeUtil::DurationToMilliseconds(retry.retry_delay()));
  } else if (google::rpc::ResourceInfo resource; any.UnpackTo(&resource)) {
    details->resource_type = resource.resource_type();
    details->resource_name = resource.resource_name();
  } else if (google::rpc::RequestInfo request; any.UnpackTo(&request)) {
    details->request_id = request.request_id();
  }
}

}  // namespace

ErrorDetails GetErrorDetails(const absl::Status& status) {
  ErrorDetails details;
  const auto payload = status.GetPayload(kRpcStatusUrl);
  google::rpc::Status rpc;
  if (!payload.has_value() || !rpc.ParseFromString(std::string(*payload))) return details;
  for (const auto& any : rpc.details()) Decode(any, &details);
  return details;
}

bool IsEtagMismatch(const absl::Status& status) {
  return status.code() == absl::StatusCode::kAborted &&
         GetErrorDetails(status).reason == "ETAG_MISMATCH";
}

std::string DescribeError(const absl::Status& status) {
  const ErrorDetails details = GetErrorDetails(status);
  const std::string message(status.message());
  std::string out = fmt::format("{}: {}", absl::StatusCodeToString(status.code()), message);
  for (const FieldViolation& violation : details.fields) {
    // The message usually is "<field>: <problem>" already; then only its name stands out.
    const bool said = message.find(violation.field) != std::string::npos;
    out += fmt::format("\n  field: {}", violation.field);
    if (!said && !violation.description.empty()) out += fmt::format(" ({})", violation.description);
  }
  if (!details.resource_name.empty()) out += fmt::format("\n  resource: {}", details.resource_name);
  if (!details.reason.empty()) out += fmt::format("\n  reason: {}", details.reason);
  if (details.retry_after.has_value()) {
    out += fmt::format("\n  retry after: {:.1f} s", details.retry_after->count() / 1000.0);
  }
  if (!details.request_id.empty()) out += fmt::format("\n  request: {}", details.request_id);
  return out;
}

}  // namespace lorad
