// absl::Status -> grpc::Status with google.rpc details (ErrorInfo always; BadRequest, ResourceInfo,
// RetryInfo where known). Pure; thread-safe.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace lorad {

inline constexpr char kErrorDomain[] = "lorad.dev";

grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace lorad
