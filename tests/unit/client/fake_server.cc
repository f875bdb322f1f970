#include "tests/unit/client/fake_server.h"

#include <grpcpp/server_builder.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/server_interceptor.h>

#include <thread>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/error_info.pb.h"
#include "google/rpc/status.pb.h"

namespace lorad {

grpc::Status RichError(grpc::StatusCode code, const std::string& message, const std::string& field,
                       const std::string& reason, int retry_ms) {
  google::rpc::Status status;
  status.set_code(code);
  status.set_message(message);
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  info.set_domain("lorad.dev");
  status.add_details()->PackFrom(info);
  if (!field.empty()) {
    google::rpc::BadRequest bad;
    auto* violation = bad.add_field_violations();
    violation->set_field(field);
    violation->set_description(message);
    status.add_details()->PackFrom(bad);
  }
  if (retry_ms > 0) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(retry_ms / 1000);
    retry.mutable_retry_delay()->set_nanos(retry_ms % 1000 * 1000000);
    status.add_details()->PackFrom(retry);
  }
  return grpc::Status(code, message, status.SerializeAsString());
}

grpc::Status FakeInference::Generate(grpc::ServerContext* context,
                                     const v1::GenerateRequest* request,
                                     grpc::ServerWriter<v1::GenerateResponse>* writer) {
  {
    const std::lock_guard lock(mutex_);
    requests_.push_back(*request);
  }
  if (!error.ok()) return error;
  const auto refused = adapter_errors.find(request->adapter());
  if (refused != adapter_errors.end()) return refused->second;
  for (size_t i = 0; i < words.size(); ++i) {
    if (i > 0) std::this_thread::sleep_for(gap);
    if (context->IsCancelled()) {
      ++cancelled;
      return grpc::Status::CANCELLED;
    }
    v1::GenerateResponse message;
    message.set_text(words[i]);
    message.add_token_ids(static_cast<int>(i));
    writer->Write(message);
  }
  if (no_finish) return grpc::Status::OK;
  v1::GenerateResponse last;
  last.mutable_finish()->set_reason(v1::FINISH_REASON_LENGTH);
  last.mutable_finish()->set_adapter(request->adapter());
  last.mutable_finish()->mutable_usage()->set_completion_tokens(static_cast<int>(words.size()));
  writer->Write(last);
  return grpc::Status::OK;
}

std::vector<v1::GenerateRequest> FakeInference::requests() {
  const std::lock_guard lock(mutex_);
  return requests_;
}

grpc::Status FakeInference::Score(grpc::ServerContext*, const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) {
  scored = *request;
  if (!error.ok()) return error;
  for (int i = 0; i < 2; ++i) {
    auto* token = response->add_tokens();
    token->set_token_id(i);
    token->set_piece("\xff");
    token->set_logprob(-1.5F);
  }
  response->set_total_logprob(-3);
  response->mutable_usage()->set_cached_tokens(5);
  response->set_adapter(request->adapter());
  return grpc::Status::OK;
}

grpc::Status FakeInference::Tokenize(grpc::ServerContext*, const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) {
  for (const char c : request->text()) {
    response->add_token_ids(static_cast<unsigned char>(c));
    response->add_pieces(std::string(1, c));
  }
  return grpc::Status::OK;
}

grpc::Status FakeAdmin::GetModel(grpc::ServerContext*, const v1::GetModelRequest*, v1::Model* out) {
  *out = model;
  return grpc::Status::OK;
}

grpc::Status FakeAdmin::GetPool(grpc::ServerContext*, const v1::GetPoolRequest*, v1::Pool* out) {
  *out = pool;
  return grpc::Status::OK;
}

grpc::Status FakeAdmin::GetStats(grpc::ServerContext*, const v1::GetStatsRequest*, v1::Stats* out) {
  *out = stats;
  return grpc::Status::OK;
}

grpc::Status FakeAdmin::Drain(grpc::ServerContext*, const v1::DrainRequest*,
                              v1::DrainResponse* out) {
  *out = drained;
  return grpc::Status::OK;
}

grpc::Status FakeAdmin::GetFit(grpc::ServerContext*, const v1::GetFitRequest* request,
                               v1::Fit* out) {
  fit_asked = *request;
  *out = fit;
  return grpc::Status::OK;
}

grpc::Status FakeAdmin::ListTenants(grpc::ServerContext*, const v1::ListTenantsRequest*,
                                    v1::ListTenantsResponse* out) {
  *out = tenants;
  return grpc::Status::OK;
}

grpc::Status FakeHealth::Check(grpc::ServerContext*,
                               const grpc::health::v1::HealthCheckRequest* request,
                               grpc::health::v1::HealthCheckResponse* response) {
  if (!request->service().empty()) return grpc::Status(grpc::StatusCode::NOT_FOUND, "unknown");
  response->set_status(serving ? grpc::health::v1::HealthCheckResponse::SERVING
                               : grpc::health::v1::HealthCheckResponse::NOT_SERVING);
  return grpc::Status::OK;
}

// Sees the metadata of every call before its method does.
class FakeServer::TenantLog {
 public:
  class Factory : public grpc::experimental::ServerInterceptorFactoryInterface {
   public:
    explicit Factory(std::shared_ptr<TenantLog> log) : log_(std::move(log)) {}
    grpc::experimental::Interceptor* CreateServerInterceptor(
        grpc::experimental::ServerRpcInfo* info) override {
      return new Entry(info->method(), log_);
    }

   private:
    const std::shared_ptr<TenantLog> log_;
  };

  std::map<std::string, std::string> all() const {
    const std::lock_guard lock(mutex_);
    return tenants_;
  }

 private:
  class Entry : public grpc::experimental::Interceptor {
   public:
    Entry(std::string method, std::shared_ptr<TenantLog> log)
        : method_(std::move(method)), log_(std::move(log)) {}
    void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
      if (methods->QueryInterceptionHookPoint(
              grpc::experimental::InterceptionHookPoints::POST_RECV_INITIAL_METADATA)) {
        const auto* metadata = methods->GetRecvInitialMetadata();
        const auto it = metadata->find("x-lorad-tenant");
        const std::lock_guard lock(log_->mutex_);
        log_->tenants_[method_] =
            it == metadata->end() ? "" : std::string(it->second.data(), it->second.size());
      }
      methods->Proceed();
    }

   private:
    const std::string method_;
    const std::shared_ptr<TenantLog> log_;
  };

  mutable std::mutex mutex_;
  std::map<std::string, std::string> tenants_;  // guarded by mutex_
};

FakeServer::FakeServer() : tenants_(std::make_shared<TenantLog>()) {
  // The built-in health service would take the calls that FakeHealth is to answer.
  grpc::EnableDefaultHealthCheckService(false);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&inference);
  builder.RegisterService(&adapters);
  builder.RegisterService(&admin);
  builder.RegisterService(&health);
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(std::make_unique<TenantLog::Factory>(tenants_));
  builder.experimental().SetInterceptorCreators(std::move(interceptors));
  server_ = builder.BuildAndStart();
  address_ = "127.0.0.1:" + std::to_string(port);
}

FakeServer::~FakeServer() { server_->Shutdown(); }

std::map<std::string, std::string> FakeServer::tenants() const { return tenants_->all(); }

}  // namespace lorad
