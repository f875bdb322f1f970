// The Inference service: gRPC calls to engine requests and streams of tokens back. Callback API: a
// reactor a call, at most one write in flight, everything that became ready meanwhile in the next
// message; a client that does not read stops its own writes, then its own request, and nothing
// else.
#pragma once

#include <lorad/v1/inference.grpc.pb.h>

#include <functional>

#include "server/adapter_catalog.h"
#include "server/engine.h"
#include "server/request_log.h"
#include "server/request_parsing.h"

namespace lorad {

class InferenceService final : public v1::Inference::CallbackService {
 public:
  struct Parts {
    Engine* engine = nullptr;
    AdapterCatalog* adapters = nullptr;
    const TenantTable* tenants = nullptr;
    const Clock* clock = nullptr;
    RequestContext context;
    // Told of each request that was refused before the engine took it; may be null.
    std::function<void(const RefusedRequest&, const absl::Status&)> on_refused;
    ArrivalRecorder* recorder = nullptr;  // of those that the engine refused; may be null
  };
  explicit InferenceService(Parts parts) : parts_(std::move(parts)) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context,
                                  const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;

 private:
  const Parts parts_;
};

}  // namespace lorad
