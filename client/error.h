// What a server says about a refused request. Client returns absl::Status whose payload is the
// server's google.rpc.Status; these functions decode it. Pure functions, any thread.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace lorad {

struct FieldViolation {
  std::string field;        // path in the request: "sampling.top_p"
  std::string description;  // what is wrong with it
};

struct ErrorDetails {
  std::string reason;  // stable, UPPER_SNAKE_CASE; empty if the server gave none
  std::string domain;
  std::vector<FieldViolation> fields;
  std::string resource_type, resource_name;
  std::optional<std::chrono::milliseconds> retry_after;
  std::string request_id;
};

// Empty details for a status that did not come from a server.
ErrorDetails GetErrorDetails(const absl::Status& status);

// Whether a change was refused because the adapter is not (any more) in the state that its etag
// named: read it again, then try again.
bool IsEtagMismatch(const absl::Status& status);

// For people, one line or more: code, message, then what the details add to it.
std::string DescribeError(const absl::Status& status);

// Key of the payload: a serialized google.rpc.Status.
inline constexpr char kRpcStatusUrl[] = "type.googleapis.com/google.rpc.Status";

}  // namespace lorad
