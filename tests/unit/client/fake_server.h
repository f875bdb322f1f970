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
#include "lorad/v1/adapters.grpc.pb.h"
#include "lorad/v1/admin.grpc.pb.h"
#include "lorad/v1/inference.grpc.pb.h"

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

 private:
  std::mutex mutex_;
  std::vector<v1::GenerateRequest> requests_;
};

class FakeAdapters : public v1::Adapters::Service {
 public:
  grpc::Status CreateAdapter(grpc::ServerContext*, const v1::CreateAdapterRequest* request,
                             v1::Adapter* adapter) override;
  grpc::Status UploadAdapter(grpc::ServerContext*,
                             grpc::ServerReader<v1::UploadAdapterRequest>* reader,
                             v1::Adapter* adapter) override;
  grpc::Status GetAdapter(grpc::ServerContext*, const v1::GetAdapterRequest* request,
                          v1::Adapter* adapter) override;
  grpc::Status ListAdapters(grpc::ServerContext*, const v1::ListAdaptersRequest* request,
                            v1::ListAdaptersResponse* response) override;
  grpc::Status DeleteAdapter(grpc::ServerContext*, const v1::DeleteAdapterRequest* request,
                             google::protobuf::Empty*) override;

  std::vector<v1::Adapter> adapters;
  int page = 2;                  // adapters in a page, whatever is asked for
  int refuse_after_chunks = -1;  // of an upload
  // What UploadAdapter saw.
  v1::UploadHeader header;
  std::vector<std::string> files;  // contents, by index
  std::vector<size_t> chunk_bytes;
  bool in_order = true;
};

class FakeAdmin : public v1::Admin::Service {
 public:
  grpc::Status GetModel(grpc::ServerContext*, const v1::GetModelRequest*, v1::Model* out) override;
  grpc::Status GetPool(grpc::ServerContext*, const v1::GetPoolRequest*, v1::Pool* out) override;
  grpc::Status GetStats(grpc::ServerContext*, const v1::GetStatsRequest*, v1::Stats* out) override;
  grpc::Status Drain(grpc::ServerContext*, const v1::DrainRequest*,
                     v1::DrainResponse* out) override;

  v1::Model model;
  v1::Pool pool;
  v1::Stats stats;
  v1::DrainResponse drained;
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

  FakeInference inference;
  FakeAdapters adapters;
  FakeAdmin admin;
  FakeHealth health;

 private:
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace lorad
