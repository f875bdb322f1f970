// FakeServer: a lorad server in this process whose answers the test chooses. Loopback, any free
// port. Members are set before the first call or read after the last.
#pragma once

#include <grpcpp/server.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "grpc/health/v1/health.grpc.pb.h"
#include "lorad/v1/admin.grpc.pb.h"
#include "lorad/v1/inference.grpc.pb.h"
#include "tests/unit/client/fake_adapters.h"

namespace lorad {

// An error as the server sends it: BadRequest about `field` unless empty, ErrorInfo with `reason`,
// RetryInfo unless 0.
grpc::Status RichError(grpc::StatusCode code, const std::string& message, const std::string& field,
                       const std::string& reason, int retry_ms);

class FakeInference : public v1::Inference::Service {
 public:
  // Streams `words`, a token each, with a pause of `gap` between them; then the finish message
  // unless `no_finish`.
  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override;
  grpc::Status Score(grpc::ServerContext*, const v1::ScoreRequest* request,
                     v1::ScoreResponse* response) override;
  grpc::Status Tokenize(grpc::ServerContext*, const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override;

  std::vector<std::string> words = {"one", " two", "\n", "three"};
  std::chrono::milliseconds gap{0};
  bool no_finish = false;
  grpc::Status error;                                  // not OK: the answer to Generate and Score
  std::map<std::string, grpc::Status> adapter_errors;  // by adapter
  std::atomic<int> cancelled{0};

  std::vector<v1::GenerateRequest> requests();
  v1::ScoreRequest scored;  // the last one

 private:
  std::mutex mutex_;
  std::vector<v1::GenerateRequest> requests_;
};

class FakeAdmin : public v1::Admin::Service {
 public:
  grpc::Status GetModel(grpc::ServerContext*, const v1::GetModelRequest*, v1::Model* out) override;
  grpc::Status GetPool(grpc::ServerContext*, const v1::GetPoolRequest*, v1::Pool* out) override;
  grpc::Status GetStats(grpc::ServerContext*, const v1::GetStatsRequest*, v1::Stats* out) override;
  grpc::Status Drain(grpc::ServerContext*, const v1::DrainRequest*,
                     v1::DrainResponse* out) override;

  grpc::Status GetFit(grpc::ServerContext*, const v1::GetFitRequest* request,
                      v1::Fit* out) override;
  grpc::Status ListTenants(grpc::ServerContext*, const v1::ListTenantsRequest*,
                           v1::ListTenantsResponse* out) override;

  v1::Model model;
  v1::Pool pool;
  v1::Stats stats;
  v1::DrainResponse drained;
  v1::Fit fit;
  v1::GetFitRequest fit_asked;
  v1::ListTenantsResponse tenants;
};

class FakeHealth : public grpc::health::v1::Health::Service {
 public:
  grpc::Status Check(grpc::ServerContext*, const grpc::health::v1::HealthCheckRequest* request,
                     grpc::health::v1::HealthCheckResponse* response) override;
  bool serving = true;
};

class FakeServer {
 public:
  FakeServer();
  ~FakeServer();
  const std::string& address() const { return address_; }
  // The tenant that each method's last call spoke for, by method ("/lorad.v1.Admin/GetPool").
  std::map<std::string, std::string> tenants() const;

  FakeInference inference;
  FakeAdapters adapters;
  FakeAdmin admin;
  FakeHealth health;

 private:
  class TenantLog;
  std::shared_ptr<TenantLog> tenants_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace lorad
