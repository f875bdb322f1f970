// The few gRPC types that the client's own files share. Not for users of the library.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/client.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "lorad/v1/adapters.grpc.pb.h"
#include "lorad/v1/admin.grpc.pb.h"
#include "lorad/v1/inference.grpc.pb.h"

namespace lorad {

// The server's status with its details as a payload (see client/error.h).
absl::Status FromGrpc(const grpc::Status& status);

// Metadata key of the tenant that a call speaks for.
inline constexpr char kTenantKey[] = "x-lorad-tenant";

// What every call begins with: its deadline and whom it speaks for.
void Prepare(const CallOptions& options, const std::string& tenant, grpc::ClientContext* context);

template <typename Response, typename Stub, typename Method, typename Request>
absl::StatusOr<Response> Unary(Stub* stub, Method method, const Request& request,
                               const std::string& tenant, const CallOptions& options) {
  grpc::ClientContext context;
  Prepare(options, tenant, &context);
  Response response;
  const grpc::Status status = (stub->*method)(&context, request, &response);
  if (!status.ok()) return FromGrpc(status);
  return response;
}

struct Client::Connections {
  std::vector<std::unique_ptr<v1::Inference::Stub>> inference;  // one a connection
  std::unique_ptr<v1::Adapters::Stub> adapters;
  std::unique_ptr<v1::Admin::Stub> admin;
  std::unique_ptr<grpc::health::v1::Health::Stub> health;
  std::string tenant;
  std::atomic<uint32_t> next{0};

  v1::Inference::Stub* Next() {
    return inference[next.fetch_add(1, std::memory_order_relaxed) % inference.size()].get();
  }
};

}  // namespace lorad
