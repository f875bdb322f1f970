// Whom a call speaks for: what its metadata say, as server/tenants.h reads them.
#pragma once

#include <grpcpp/server_context.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lorad {

// The tenant; empty: the operator. InvalidArgument INVALID_TENANT.
absl::StatusOr<std::string> CallerOf(const grpc::CallbackServerContext& context);

// OK if the call speaks for the operator; PermissionDenied OPERATOR_ONLY if for a tenant.
absl::Status CheckOperator(const grpc::CallbackServerContext& context);

}  // namespace lorad
