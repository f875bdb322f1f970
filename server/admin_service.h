// The Admin service: what the operator wants to know (model, pool, tenants, counters) and do
// (drain). What speaks of all tenants is for the operator alone.
#pragma once

#include <lorad/v1/admin.grpc.pb.h>

#include <chrono>
#include <functional>
#include <string>

#include "server/adapter_catalog.h"
#include "server/adapter_images.h"
#include "server/adapter_staging.h"
#include "server/engine.h"
#include "server/metrics.h"
#include "server/work_queue.h"

namespace lorad {

class AdminService final : public v1::Admin::CallbackService {
 public:
  struct Parts {  // borrowed
    Engine* engine = nullptr;
    AdapterCatalog* catalog = nullptr;
    const AdapterImages* images = nullptr;
    const AdapterStaging* staging = nullptr;  // null: there is none
    const Metrics* metrics = nullptr;
    WorkQueue* work = nullptr;  // its own: a drain occupies a thread
    v1::Model model;            // constant, filled at start
    size_t page_bytes = 0;
    int page_tokens = 0;
    std::chrono::system_clock::time_point start;
    std::function<void()> on_drain;  // e.g. health becomes NOT_SERVING
  };
  explicit AdminService(Parts parts) : parts_(std::move(parts)) {}

  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const v1::GetModelRequest* request,
                                     v1::Model* response) override;
  grpc::ServerUnaryReactor* GetPool(grpc::CallbackServerContext* context,
                                    const v1::GetPoolRequest* request, v1::Pool* response) override;
  grpc::ServerUnaryReactor* GetFit(grpc::CallbackServerContext* context,
                                   const v1::GetFitRequest* request, v1::Fit* response) override;
  grpc::ServerUnaryReactor* ListTenants(grpc::CallbackServerContext* context,
                                        const v1::ListTenantsRequest* request,
                                        v1::ListTenantsResponse* response) override;
  grpc::ServerUnaryReactor* GetStats(grpc::CallbackServerContext* context,
                                     const v1::GetStatsRequest* request,
                                     v1::Stats* response) override;
  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* context,
                                  const v1::DrainRequest* request,
                                  v1::DrainResponse* response) override;

 private:
  absl::Status FillFit(const v1::GetFitRequest& request, v1::Fit* response) const;

  const Parts parts_;
};

}  // namespace lorad
