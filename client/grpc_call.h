// The few gRPC types that the client's own files share. Not for users of the library.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <atomic>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "client/client.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "lorad/v1/adapters.grpc.pb.h"
#include "lorad/v1/admin.grpc.pb.h"
#include "lorad/v1/inference.grpc.pb.h"

namespace lorad {

// The server's status with its details as a payload (see client/error.h).
absl::Status FromGrpc(const grpc::Status& status);

void SetDeadline(const CallOptions& options, grpc::ClientContext* context);

struct Client::Connections {
  std::vector<std::unique_ptr<v1::Inference::Stub>> inference;  // one a connection
  std::unique_ptr<v1::Adapters::Stub> adapters;
  std::unique_ptr<v1::Admin::Stub> admin;
  std::unique_ptr<grpc::health::v1::Health::Stub> health;
  std::atomic<uint32_t> next{0};

  v1::Inference::Stub* Next() {
    return inference[next.fetch_add(1, std::memory_order_relaxed) % inference.size()].get();
  }
};

}  // namespace lorad
