// Requests of the wire turned into the engine's: defaults filled in, every field checked and named,
// text tokenized. Pure but for the tokenizer's work; called on gRPC's threads.
#pragma once

#include <lorad/v1/inference.pb.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "model/model_config.h"
#include "model/tokenizer/tokenizer.h"
#include "server/request.h"

namespace lorad {

// What parsing needs to know of the server. Borrowed.
struct RequestContext {
  const ModelConfig* model = nullptr;
  const Tokenizer* tokenizer = nullptr;
  int max_model_len = 0;
  int default_max_tokens = 256;
  size_t max_prompt_bytes = 4 << 20;
};

// What names the request in logs and errors: `wanted`, or one of ours if it is empty.
// InvalidArgument (field "request_id") if it is not to be had.
absl::StatusOr<std::string> ChooseRequestId(const std::string& wanted);
std::string NewRequestId();

// Everything but request id, tenant and its weight, adapters, arrival, deadline and stream. The
// errors are InvalidArgument with the field's path.
absl::StatusOr<std::unique_ptr<GenerationRequest>> ParseGenerate(const v1::GenerateRequest& wire,
                                                                 const RequestContext& context);
absl::StatusOr<std::unique_ptr<GenerationRequest>> ParseScore(const v1::ScoreRequest& wire,
                                                              const RequestContext& context);

}  // namespace lorad
