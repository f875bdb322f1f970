// Details that travel with an absl::Status until the gRPC edge turns them into google.rpc messages
// (ErrorInfo, BadRequest, RetryInfo, ResourceInfo). Lets every folder say *what exactly* was wrong
// without knowing protobuf. Payloads are plain text under lorad's own URLs. Functions are pure;
// statuses are values.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace lorad {

struct ErrorDetail {
  std::string reason;                        // UPPER_SNAKE_CASE, stable: "ADAPTER_NOT_FOUND"
  std::string field;                         // path of the offending field, or empty
  std::string resource_type, resource_name;  // e.g. "lorad.dev/Adapter", "adapters/acme-7"
  std::optional<std::chrono::milliseconds> retry_after;
};

// Each returns `status` with the detail added. REQUIRES: !status.ok().
absl::Status WithReason(absl::Status status, std::string_view reason);
absl::Status WithField(absl::Status status, std::string_view field);
absl::Status WithResource(absl::Status status, std::string_view type, std::string_view name);
absl::Status WithRetryAfter(absl::Status status, std::chrono::milliseconds delay);

// INVALID_ARGUMENT about one field: message "<field>: <problem>", reason INVALID_FIELD unless
// given.
absl::Status InvalidField(std::string_view field, std::string_view problem,
                          std::string_view reason = "INVALID_FIELD");

// `status` with "<what>: " before its message, without its details; OK stays OK.
absl::Status Explain(std::string_view what, const absl::Status& status);

ErrorDetail GetErrorDetail(const absl::Status& status);

}  // namespace lorad
