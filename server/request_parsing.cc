#include "server/request_parsing.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <utility>

#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"

namespace lorad {
namespace {

constexpr size_t kMaxStopStrings = 16;
constexpr size_t kMaxStopBytes = 256;
constexpr size_t kMaxStopTokens = 256;
constexpr size_t kMaxRequestIdBytes = 128;
constexpr size_t kMaxCacheSaltBytes = 128;
constexpr int kMaxLogprobs = 20;

uint64_t FreshSeed() {
  thread_local std::mt19937_64 generator{std::random_device{}()};
  return generator();
}

absl::Status ParseCacheSalt(const std::string& wire, GenerationRequest* request) {
  if (wire.size() > kMaxCacheSaltBytes) {
    return InvalidField("cache_salt", fmt::format("must be at most {} bytes", kMaxCacheSaltBytes));
  }
  request->cache_salt = wire;
  return absl::OkStatus();
}

absl::Status ParsePriority(v1::Priority wire, GenerationRequest* request) {
  switch (wire) {
    case v1::PRIORITY_INTERACTIVE:
      request->priority = Priority::kInteractive;
      return absl::OkStatus();
    case v1::PRIORITY_UNSPECIFIED:
    case v1::PRIORITY_STANDARD:
      request->priority = Priority::kStandard;
      return absl::OkStatus();
    case v1::PRIORITY_BATCH:
      request->priority = Priority::kBatch;
      return absl::OkStatus();
    default:
      return InvalidField("priority", fmt::format("{} is none", static_cast<int>(wire)));
  }
}

absl::Status CheckTokenId(TokenId id, int vocab_size, std::string_view field) {
  if (id >= 0 && id < vocab_size) return absl::OkStatus();
  return InvalidField(field, fmt::format("token id {} is outside [0, {})", id, vocab_size));
}

absl::StatusOr<std::vector<TokenId>> ParseInput(const v1::Input& input, std::string_view field,
                                                const RequestContext& context) {
  if (input.kind_case() == v1::Input::kTokenIds) {
    const auto& ids = input.token_ids().ids();
    for (int i = 0; i < ids.size(); ++i) {
      if (ids[i] < 0 || ids[i] >= context.model->vocab_size) {
        return CheckTokenId(ids[i], context.model->vocab_size,
                            fmt::format("{}.token_ids.ids[{}]", field, i));
      }
    }
    return std::vector<TokenId>(ids.begin(), ids.end());
  }
  if (input.kind_case() != v1::Input::kText) return std::vector<TokenId>{};
  const std::string text_field = fmt::format("{}.text", field);
  if (context.tokenizer == nullptr) {
    return InvalidField(text_field, "the model has no tokenizer; send token_ids", "NO_TOKENIZER");
  }
  if (input.text().size() > context.max_prompt_bytes) {
    return InvalidField(text_field,
                        fmt::format("{} bytes exceed the limit of {}", input.text().size(),
                                    context.max_prompt_bytes),
                        "PROMPT_TOO_LONG");
  }
  EncodeOptions options;
  options.add_special_tokens = !input.has_add_special_tokens() || input.add_special_tokens();
  auto tokens = context.tokenizer->Encode(input.text(), options);
  if (!tokens.ok()) return InvalidField(text_field, std::string(tokens.status().message()));
  for (TokenId id : *tokens) {
    // A tokenizer may know more tokens than the model has embeddings for.
    LORAD_RETURN_IF_ERROR(CheckTokenId(id, context.model->vocab_size, text_field));
  }
  return std::move(*tokens);
}

absl::StatusOr<SamplingParams> ParseSampling(const v1::SamplingParams& wire) {
  SamplingParams params;
  if (wire.has_temperature()) params.temperature = wire.temperature();
  if (wire.has_top_k()) params.top_k = wire.top_k();
  if (wire.has_top_p()) params.top_p = wire.top_p();
  if (wire.has_min_p()) params.min_p = wire.min_p();
  if (wire.has_repetition_penalty()) params.repetition_penalty = wire.repetition_penalty();
  if (wire.has_presence_penalty()) params.presence_penalty = wire.presence_penalty();
  if (wire.has_frequency_penalty()) params.frequency_penalty = wire.frequency_penalty();
  params.seed = wire.has_seed() ? wire.seed() : FreshSeed();
  params.logit_bias.reserve(static_cast<size_t>(wire.logit_bias_size()));
  for (const auto& bias : wire.logit_bias())
    params.logit_bias.push_back({bias.token_id(), bias.bias()});
  return params;
}

absl::Status ParseStops(const v1::GenerateRequest& wire, const RequestContext& context,
                        GenerationRequest* request) {
  if (static_cast<size_t>(wire.stop_size()) > kMaxStopStrings) {
    return InvalidField("stop", fmt::format("at most {} strings", kMaxStopStrings));
  }
  if (wire.stop_size() > 0 && context.tokenizer == nullptr) {
    return InvalidField("stop", "the model has no tokenizer", "NO_TOKENIZER");
  }
  for (int i = 0; i < wire.stop_size(); ++i) {
    if (wire.stop(i).empty() || wire.stop(i).size() > kMaxStopBytes) {
      return InvalidField(fmt::format("stop[{}]", i),
                          fmt::format("must have 1 to {} bytes", kMaxStopBytes));
    }
    request->stop_strings.push_back(wire.stop(i));
  }
  if (static_cast<size_t>(wire.stop_token_ids_size()) > kMaxStopTokens) {
    return InvalidField("stop_token_ids", fmt::format("at most {} ids", kMaxStopTokens));
  }
  auto& stops = request->sampling.stop_tokens;
  for (int i = 0; i < wire.stop_token_ids_size(); ++i) {
    LORAD_RETURN_IF_ERROR(CheckTokenId(wire.stop_token_ids(i), context.model->vocab_size,
                                       fmt::format("stop_token_ids[{}]", i)));
    stops.push_back(wire.stop_token_ids(i));
  }
  if (!wire.ignore_eos()) {
    stops.insert(stops.end(), context.model->eos_token_ids.begin(),
                 context.model->eos_token_ids.end());
  }
  return absl::OkStatus();
}

absl::Status ParseLengths(const v1::GenerateRequest& wire, const RequestContext& context,
                          GenerationRequest* request) {
  const int prompt = static_cast<int>(request->prompt.size());
  if (prompt >= context.max_model_len) {
    return InvalidField(
        "prompt",
        fmt::format("{} tokens leave no room for output in the context of {} tokens", prompt,
                    context.max_model_len),
        "PROMPT_TOO_LONG");
  }
  const int room = context.max_model_len - prompt;
  request->max_tokens =
      wire.has_max_tokens() ? wire.max_tokens() : std::min(context.default_max_tokens, room);
  if (request->max_tokens < 1) return InvalidField("max_tokens", "must be at least 1");
  if (request->max_tokens > room) {
    return InvalidField("max_tokens",
                        fmt::format("{} prompt tokens and max_tokens {} exceed the context of {} "
                                    "tokens",
                                    prompt, request->max_tokens, context.max_model_len),
                        "PROMPT_TOO_LONG");
  }
  request->sampling.min_tokens = wire.min_tokens();
  if (wire.min_tokens() < 0 || wire.min_tokens() > request->max_tokens) {
    return InvalidField("min_tokens", "must be in [0, max_tokens]");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ChooseRequestId(const std::string& wanted) {
  if (wanted.empty()) return NewRequestId();
  const bool printable =
      std::all_of(wanted.begin(), wanted.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
  if (wanted.size() > kMaxRequestIdBytes || !printable) {
    return InvalidField("request_id", "must be at most 128 printable ASCII characters");
  }
  return wanted;
}

std::string NewRequestId() {
  static std::atomic<uint64_t> counter{FreshSeed() & 0xffffffff};
  return fmt::format("req-{:08x}", counter.fetch_add(1) & 0xffffffff);
}

absl::StatusOr<std::unique_ptr<GenerationRequest>> ParseGenerate(const v1::GenerateRequest& wire,
                                                                 const RequestContext& context) {
  auto request = std::make_unique<GenerationRequest>();
  LORAD_RETURN_IF_ERROR(ParseCacheSalt(wire.cache_salt(), request.get()));
  LORAD_RETURN_IF_ERROR(ParsePriority(wire.priority(), request.get()));
  if (wire.prompt().kind_case() == v1::Input::KIND_NOT_SET) {
    return InvalidField("prompt", "is required: text or token_ids");
  }
  LORAD_ASSIGN_OR_RETURN(request->prompt, ParseInput(wire.prompt(), "prompt", context));
  if (request->prompt.empty()) return InvalidField("prompt", "must have at least one token");
  LORAD_ASSIGN_OR_RETURN(request->sampling, ParseSampling(wire.sampling()));
  LORAD_RETURN_IF_ERROR(ParseLengths(wire, context, request.get()));
  LORAD_RETURN_IF_ERROR(ParseStops(wire, context, request.get()));
  if (wire.has_logprobs()) {
    if (wire.logprobs() < 0 || wire.logprobs() > kMaxLogprobs) {
      return InvalidField("logprobs", "must be in [0, 20]");
    }
    request->sampling.logprobs = wire.logprobs();
  }
  LORAD_RETURN_IF_ERROR(ValidateSamplingParams(request->sampling, context.model->vocab_size));
  request->want_text = context.tokenizer != nullptr;
  return request;
}

absl::StatusOr<std::unique_ptr<GenerationRequest>> ParseScore(const v1::ScoreRequest& wire,
                                                              const RequestContext& context) {
  auto request = std::make_unique<GenerationRequest>();
  LORAD_RETURN_IF_ERROR(ParseCacheSalt(wire.cache_salt(), request.get()));
  LORAD_RETURN_IF_ERROR(ParsePriority(wire.priority(), request.get()));
  const auto context_kind = wire.context().kind_case();
  const auto kind = wire.continuation().kind_case();
  if (kind == v1::Input::KIND_NOT_SET) {
    return InvalidField("continuation", "is required: text or token_ids");
  }
  const bool has_context = context_kind != v1::Input::KIND_NOT_SET;
  if (has_context && context_kind != kind) {
    return InvalidField("context", "must be of the same kind as continuation");
  }
  std::vector<TokenId> before;
  if (has_context) {
    LORAD_ASSIGN_OR_RETURN(before, ParseInput(wire.context(), "context", context));
  }
  if (has_context && kind == v1::Input::kText) {
    v1::Input whole = wire.context();
    whole.mutable_text()->append(wire.continuation().text());
    LORAD_ASSIGN_OR_RETURN(request->prompt, ParseInput(whole, "continuation", context));
  } else {
    request->prompt = before;
    LORAD_ASSIGN_OR_RETURN(std::vector<TokenId> after,
                           ParseInput(wire.continuation(), "continuation", context));
    request->prompt.insert(request->prompt.end(), after.begin(), after.end());
  }
  if (request->prompt.size() <= before.size()) {
    return InvalidField("continuation", "must have at least one token");
  }
  if (wire.top_logprobs() < 0 || wire.top_logprobs() > kMaxLogprobs) {
    return InvalidField("top_logprobs", "must be in [0, 20]");
  }
  if (request->prompt.size() > static_cast<size_t>(context.max_model_len)) {
    return InvalidField("continuation",
                        fmt::format("{} tokens exceed the context of {} tokens",
                                    request->prompt.size(), context.max_model_len),
                        "PROMPT_TOO_LONG");
  }
  request->score = true;
  request->score_from = static_cast<int>(before.size());
  request->score_top = std::max(1, wire.top_logprobs());  // the likeliest tells is_greedy
  request->want_text = false;
  return request;
}

}  // namespace lorad
