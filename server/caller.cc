#include "server/caller.h"

#include <string_view>
#include <vector>

#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "server/tenants.h"

namespace lorad {

absl::StatusOr<std::string> CallerOf(const grpc::CallbackServerContext& context) {
  std::vector<std::string_view> values;
  const auto [begin, end] = context.client_metadata().equal_range(kTenantMetadata);
  for (auto at = begin; at != end; ++at) {
    values.emplace_back(at->second.data(), at->second.size());
  }
  return TenantOfMetadata(values);
}

absl::Status CheckOperator(const grpc::CallbackServerContext& context) {
  LORAD_ASSIGN_OR_RETURN(const std::string caller, CallerOf(context));
  if (caller.empty()) return absl::OkStatus();
  return WithReason(absl::PermissionDeniedError("only the operator may call this: it speaks of all "
                                                "tenants"),
                    "OPERATOR_ONLY");
}

}  // namespace lorad
