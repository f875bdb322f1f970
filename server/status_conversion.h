// absl::Status -> grpc::Status with google.rpc details (ErrorInfo always; BadRequest, ResourceInfo,
// RetryInfo, RequestInfo where known). Pure; thread-safe.
#pragma once

#include <grpcpp/support/status.h>

#include <string_view>

#include "absl/status/status.h"

namespace lorad {

inline constexpr char kErrorDomain[] = "lorad.dev";

// `request_id`: of the request that failed; empty: it has none.
grpc::Status ToGrpcStatus(const absl::Status& status, std::string_view request_id = {});

}  // namespace lorad
