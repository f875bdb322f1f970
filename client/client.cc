#include "client/client.h"

#include <fmt/format.h>
#include <google/protobuf/util/time_util.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include "absl/strings/cord.h"
#include "client/error.h"
#include "client/grpc_call.h"

namespace lorad {
namespace {

// A page of 1000 adapters and the log-probabilities of a long text fit.
constexpr int kMaxMessageBytes = 16 << 20;

std::shared_ptr<grpc::Channel> Connect(const ClientOptions& options) {
  grpc::ChannelArguments args;
  args.SetMaxReceiveMessageSize(kMaxMessageBytes);
  // Without this, channels to one address share one connection.
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(options.address, grpc::InsecureChannelCredentials(), args);
}

}  // namespace

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  // The two enumerations have the same numbers.
  absl::Status out(static_cast<absl::StatusCode>(status.error_code()),
                   absl::string_view(status.error_message()));
  if (!status.error_details().empty()) {
    out.SetPayload(kRpcStatusUrl, absl::Cord(status.error_details()));
  }
  return out;
}

void Prepare(const CallOptions& options, const std::string& tenant, grpc::ClientContext* context) {
  if (options.timeout.has_value()) {
    context->set_deadline(std::chrono::system_clock::now() + *options.timeout);
  }
  if (!tenant.empty()) context->AddMetadata(kTenantKey, tenant);
}

Client::Client(const ClientOptions& options) : connections_(std::make_unique<Connections>()) {
  auto first = Connect(options);
  connections_->tenant = options.tenant;
  connections_->adapters = v1::Adapters::NewStub(first);
  connections_->admin = v1::Admin::NewStub(first);
  connections_->health = grpc::health::v1::Health::NewStub(first);
  connections_->inference.push_back(v1::Inference::NewStub(first));
  for (int i = 1; i < options.connections; ++i) {
    connections_->inference.push_back(v1::Inference::NewStub(Connect(options)));
  }
}

Client::~Client() = default;

absl::StatusOr<v1::ScoreResponse> Client::Score(const v1::ScoreRequest& request,
                                                const CallOptions& options) {
  return Unary<v1::ScoreResponse>(connections_->Next(), &v1::Inference::Stub::Score, request,
                                  connections_->tenant, options);
}

absl::StatusOr<v1::TokenizeResponse> Client::Tokenize(const v1::TokenizeRequest& request,
                                                      const CallOptions& options) {
  return Unary<v1::TokenizeResponse>(connections_->Next(), &v1::Inference::Stub::Tokenize, request,
                                     connections_->tenant, options);
}

absl::StatusOr<v1::DetokenizeResponse> Client::Detokenize(const v1::DetokenizeRequest& request,
                                                          const CallOptions& options) {
  return Unary<v1::DetokenizeResponse>(connections_->Next(), &v1::Inference::Stub::Detokenize,
                                       request, connections_->tenant, options);
}

absl::StatusOr<v1::Model> Client::GetModel(const CallOptions& options) {
  return Unary<v1::Model>(connections_->admin.get(), &v1::Admin::Stub::GetModel,
                          v1::GetModelRequest(), connections_->tenant, options);
}

absl::StatusOr<v1::Pool> Client::GetPool(int max_adapters, const CallOptions& options) {
  v1::GetPoolRequest request;
  request.set_max_adapters(max_adapters);
  return Unary<v1::Pool>(connections_->admin.get(), &v1::Admin::Stub::GetPool, request,
                         connections_->tenant, options);
}

absl::StatusOr<v1::Fit> Client::GetFit(const v1::GetFitRequest& request,
                                       const CallOptions& options) {
  return Unary<v1::Fit>(connections_->admin.get(), &v1::Admin::Stub::GetFit, request,
                        connections_->tenant, options);
}

absl::StatusOr<std::vector<v1::Tenant>> Client::ListTenants(const CallOptions& options) {
  auto response =
      Unary<v1::ListTenantsResponse>(connections_->admin.get(), &v1::Admin::Stub::ListTenants,
                                     v1::ListTenantsRequest(), connections_->tenant, options);
  if (!response.ok()) return response.status();
  return std::vector<v1::Tenant>(response->tenants().begin(), response->tenants().end());
}

absl::StatusOr<v1::Stats> Client::GetStats(const CallOptions& options) {
  return Unary<v1::Stats>(connections_->admin.get(), &v1::Admin::Stub::GetStats,
                          v1::GetStatsRequest(), connections_->tenant, options);
}

absl::StatusOr<v1::DrainResponse> Client::Drain(std::optional<std::chrono::milliseconds> wait,
                                                const CallOptions& options) {
  v1::DrainRequest request;
  if (wait.has_value()) {
    *request.mutable_timeout() =
        google::protobuf::util::TimeUtil::MillisecondsToDuration(wait->count());
  }
  return Unary<v1::DrainResponse>(connections_->admin.get(), &v1::Admin::Stub::Drain, request,
                                  connections_->tenant, options);
}

absl::StatusOr<bool> Client::IsServing(const std::string& service, const CallOptions& options) {
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  auto response = Unary<grpc::health::v1::HealthCheckResponse>(
      connections_->health.get(), &grpc::health::v1::Health::Stub::Check, request,
      connections_->tenant, options);
  if (!response.ok()) return response.status();
  return response->status() == grpc::health::v1::HealthCheckResponse::SERVING;
}

}  // namespace lorad
