#include "tests/unit/client/fake_server.h"

#include <grpcpp/server_builder.h>
#include <grpcpp/server_context.h>

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
  if (!error.ok()) return error;
  for (int i = 0; i < 2; ++i) {
    auto* token = response->add_tokens();
    token->set_token_id(i);
    token->set_piece("\xff");
    token->set_logprob(-1.5F);
  }
  response->set_total_logprob(-3);
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

grpc::Status FakeAdapters::CreateAdapter(grpc::ServerContext*,
                                         const v1::CreateAdapterRequest* request,
                                         v1::Adapter* adapter) {
  if (!request->replace()) {
    return RichError(grpc::StatusCode::ALREADY_EXISTS, "it exists", "", "ADAPTER_EXISTS", 0);
  }
  adapter->set_name("adapters/" + request->adapter_id());
  adapter->set_version(2);
  return grpc::Status::OK;
}

grpc::Status FakeAdapters::UploadAdapter(grpc::ServerContext*,
                                         grpc::ServerReader<v1::UploadAdapterRequest>* reader,
                                         v1::Adapter* adapter) {
  v1::UploadAdapterRequest message;
  if (!reader->Read(&message) || !message.has_header()) {
    return RichError(grpc::StatusCode::INVALID_ARGUMENT, "no header", "header", "INVALID_FIELD", 0);
  }
  header = message.header();
  files.assign(static_cast<size_t>(header.files_size()), "");
  int chunks = 0;
  int last_file = 0;
  while (reader->Read(&message)) {
    if (chunks++ == refuse_after_chunks) {
      return RichError(grpc::StatusCode::INVALID_ARGUMENT, "bad tensor", "files[1]", "BAD_TENSOR",
                       0);
    }
    const v1::UploadChunk& chunk = message.chunk();
    std::string& file = files.at(static_cast<size_t>(chunk.file_index()));
    in_order = in_order && chunk.file_index() >= last_file &&
               chunk.offset() == static_cast<int64_t>(file.size());
    last_file = chunk.file_index();
    file += chunk.data();
    chunk_bytes.push_back(chunk.data().size());
  }
  adapter->set_name("adapters/" + header.adapter_id());
  adapter->set_version(1);
  return grpc::Status::OK;
}

grpc::Status FakeAdapters::GetAdapter(grpc::ServerContext*, const v1::GetAdapterRequest* request,
                                      v1::Adapter* adapter) {
  for (const v1::Adapter& a : adapters) {
    if (a.name() == request->name()) {
      *adapter = a;
      return grpc::Status::OK;
    }
  }
  return RichError(grpc::StatusCode::NOT_FOUND, "no such adapter", "name", "ADAPTER_NOT_FOUND", 0);
}

grpc::Status FakeAdapters::ListAdapters(grpc::ServerContext*,
                                        const v1::ListAdaptersRequest* request,
                                        v1::ListAdaptersResponse* response) {
  const size_t begin = request->page_token().empty() ? 0 : std::stoul(request->page_token());
  const size_t end = std::min(adapters.size(), begin + static_cast<size_t>(page));
  for (size_t i = begin; i < end; ++i) *response->add_adapters() = adapters[i];
  if (end < adapters.size()) response->set_next_page_token(std::to_string(end));
  return grpc::Status::OK;
}

grpc::Status FakeAdapters::DeleteAdapter(grpc::ServerContext*,
                                         const v1::DeleteAdapterRequest* request,
                                         google::protobuf::Empty*) {
  for (auto it = adapters.begin(); it != adapters.end(); ++it) {
    if (it->name() == request->name()) {
      adapters.erase(it);
      return grpc::Status::OK;
    }
  }
  if (request->allow_missing()) return grpc::Status::OK;
  return RichError(grpc::StatusCode::NOT_FOUND, "no such adapter", "name", "ADAPTER_NOT_FOUND", 0);
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

grpc::Status FakeHealth::Check(grpc::ServerContext*,
                               const grpc::health::v1::HealthCheckRequest* request,
                               grpc::health::v1::HealthCheckResponse* response) {
  if (!request->service().empty()) return grpc::Status(grpc::StatusCode::NOT_FOUND, "unknown");
  response->set_status(serving ? grpc::health::v1::HealthCheckResponse::SERVING
                               : grpc::health::v1::HealthCheckResponse::NOT_SERVING);
  return grpc::Status::OK;
}

FakeServer::FakeServer() {
  // The built-in health service would take the calls that FakeHealth is to answer.
  grpc::EnableDefaultHealthCheckService(false);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&inference);
  builder.RegisterService(&adapters);
  builder.RegisterService(&admin);
  builder.RegisterService(&health);
  server_ = builder.BuildAndStart();
  address_ = "127.0.0.1:" + std::to_string(port);
}

FakeServer::~FakeServer() { server_->Shutdown(); }

}  // namespace lorad
