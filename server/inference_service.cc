#include "server/inference_service.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <utility>

#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "server/caller.h"
#include "server/reply.h"
#include "server/status_conversion.h"

namespace lorad {
namespace {

constexpr size_t kStreamCapacity =
    64;  // events that may wait for a slow reader before its request is paused

TimePoint DeadlineOf(const grpc::CallbackServerContext& context, TimePoint now) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return TimePoint::max();
  const auto left = deadline - std::chrono::system_clock::now();
  if (left > std::chrono::hours(24 * 365)) return TimePoint::max();
  return now + std::chrono::duration_cast<Duration>(left);
}

v1::FinishReason WireReason(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStopToken:
      return v1::FINISH_REASON_STOP_TOKEN;
    case FinishReason::kStopString:
      return v1::FINISH_REASON_STOP_STRING;
    case FinishReason::kLength:
    case FinishReason::kScored:
      return v1::FINISH_REASON_LENGTH;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

void FillLogprobs(const SampledToken& token, const Tokenizer* tokenizer, v1::TokenLogprobs* out) {
  const auto piece = [tokenizer](TokenId id) {
    return tokenizer != nullptr ? tokenizer->TokenBytes(id) : std::string();
  };
  out->set_token_id(token.token);
  out->set_piece(piece(token.token));
  out->set_logprob(token.logprob);
  for (const TokenLogprob& t : token.top) {
    auto* top = out->add_top();
    top->set_token_id(t.token);
    top->set_piece(piece(t.token));
    top->set_logprob(t.logprob);
  }
}

void FillUsage(const Usage& usage, v1::Usage* out) {
  out->set_prompt_tokens(usage.prompt_tokens);
  out->set_completion_tokens(usage.output_tokens);
  out->set_cached_tokens(usage.cached_tokens);
}

// What the answer says about a request once it has been handed to the engine.
struct RequestFacts {
  std::string request_id;
  std::string adapter;  // resource name, empty for the base model
  int64_t adapter_version = 0;
  uint64_t seed = 0;
  bool logprobs = false;
};

RequestFacts FactsOf(const GenerationRequest& request) {
  RequestFacts facts{.request_id = request.request_id,
                     .adapter = {},
                     .adapter_version = 0,
                     .seed = request.sampling.seed,
                     .logprobs = request.sampling.logprobs >= 0};
  if (!request.adapters.empty()) {
    facts.adapter = "adapters/" + request.adapters[0].version->name;
    facts.adapter_version = request.adapters[0].version->version;
  }
  return facts;
}

// What a call has to do with the engine: it hands a request over, listens to its stream, and
// cancels it.
class EngineCall {
 protected:
  EngineCall(const InferenceService::Parts& parts, size_t stream_capacity)
      : parts_(parts),
        stream_(std::make_shared<TokenStream>(stream_capacity)),
        arrival_(parts.clock->Now()) {}
  ~EngineCall() = default;

  // Who asks, and what the request is called, also if it is refused.
  absl::Status Identify(const grpc::CallbackServerContext& context, const std::string& wanted_id) {
    auto id = ChooseRequestId(wanted_id);
    facts_.request_id = id.ok() ? *id : NewRequestId();
    LORAD_ASSIGN_OR_RETURN(tenant_, CallerOf(context));
    return id.status();
  }

  // REQUIRES: Identify was OK. `listener` is called when the stream has something; it may be at
  // once.
  absl::Status HandOver(grpc::CallbackServerContext* context, const std::string& adapter,
                        std::unique_ptr<GenerationRequest> request,
                        std::function<void()> listener) {
    priority_ = request->priority;
    LORAD_ASSIGN_OR_RETURN(auto version, parts_.adapters->Resolve(tenant_, adapter));
    if (version != nullptr) {
      request->adapters.push_back({.version = std::move(version), .weight = 1.0f});
    }
    request->request_id = facts_.request_id;
    request->tenant = tenant_;
    const TenantLimits& limits = parts_.tenants->Of(tenant_);
    request->tenant_weight = limits.weight;
    request->tenant_max_waiting = limits.max_waiting;
    request->arrival = arrival_;
    request->deadline = DeadlineOf(*context, parts_.clock->Now());
    request->stream = stream_;
    facts_ = FactsOf(*request);
    stream_->SetListener(std::move(listener));
    std::optional<ArrivalRecorder::Entry> arrival;
    if (parts_.recorder != nullptr) arrival = parts_.recorder->Begin(*request);
    const absl::StatusOr<RequestId> id = parts_.engine->Submit(std::move(request));
    if (!id.ok() && arrival.has_value()) parts_.recorder->Refuse(*std::move(arrival), id.status());
    if (!id.ok()) return id.status();
    id_.store(*id);
    if (context->IsCancelled()) CancelRequest();  // it may have come before the id was known
    return absl::OkStatus();
  }

  // The engine answers with the stream's end, which finishes the call.
  void CancelRequest() {
    const RequestId id = id_.load();
    if (id != 0) parts_.engine->Cancel(id);
  }

  grpc::Status Refuse(const absl::Status& status) const {
    if (parts_.on_refused) {
      parts_.on_refused({.request_id = facts_.request_id, .tenant = tenant_, .priority = priority_},
                        status);
    }
    return WireStatus(status);
  }
  grpc::Status WireStatus(const absl::Status& status) const {
    return ToGrpcStatus(status, facts_.request_id);
  }

  const InferenceService::Parts& parts_;
  const std::shared_ptr<TokenStream> stream_;
  RequestFacts facts_;

 private:
  const TimePoint arrival_;  // when the call was read: tokenizing counts
  std::string tenant_;
  Priority priority_ = Priority::kStandard;
  std::atomic<RequestId> id_{0};
};

// One Generate call. Lives until OnDone; the stream's listener holds it too, so a late notification
// finds it alive.
class GenerateCall final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                           private EngineCall,
                           public std::enable_shared_from_this<GenerateCall> {
 public:
  static GenerateCall* Start(const InferenceService::Parts& parts,
                             grpc::CallbackServerContext* context,
                             const v1::GenerateRequest* wire) {
    auto call = std::make_shared<GenerateCall>(parts);
    call->self_ = call;
    const absl::Status status = call->Submit(context, *wire);
    if (!status.ok()) call->FinishOnce(call->Refuse(status));
    return call.get();
  }

  explicit GenerateCall(const InferenceService::Parts& parts)
      : EngineCall(parts, kStreamCapacity) {}

  void OnWriteDone(bool ok) override {
    {
      std::lock_guard lock(mutex_);
      writing_ = false;
    }
    if (!ok) {
      CancelRequest();
      FinishOnce(grpc::Status::CANCELLED);
      return;
    }
    Pump();
  }

  void OnCancel() override { CancelRequest(); }

  void OnDone() override {
    stream_->SetListener(nullptr);
    self_.reset();
  }

 private:
  absl::Status Submit(grpc::CallbackServerContext* context, const v1::GenerateRequest& wire) {
    LORAD_RETURN_IF_ERROR(Identify(*context, wire.request_id()));
    LORAD_ASSIGN_OR_RETURN(auto request, ParseGenerate(wire, parts_.context));
    if (wire.include_prompt()) {
      if (parts_.context.tokenizer != nullptr) {
        message_.set_prompt_text(parts_.context.tokenizer->Decode(request->prompt, true));
      }
      message_.mutable_prompt_token_ids()->Assign(request->prompt.begin(), request->prompt.end());
    }
    return HandOver(context, wire.adapter(), std::move(request),
                    [self = shared_from_this()] { self->Pump(); });
  }

  // Writes what is there, unless a write is in flight or nothing is there.
  void Pump() {
    std::optional<grpc::Status> error;
    bool last = false;
    {
      std::lock_guard lock(mutex_);
      if (writing_ || finished_) return;
      std::vector<StreamEvent> events = stream_->Take();
      if (events.empty()) return;
      if (!fresh_) message_.Clear();
      fresh_ = false;
      for (StreamEvent& event : events) Append(std::move(event), &error, &last);
      if (error) {
        finished_ = true;
      } else {
        writing_ = true;
        finished_ = last;
      }
    }
    if (error) {
      Finish(*error);
    } else if (last) {
      StartWriteAndFinish(&message_, grpc::WriteOptions(), grpc::Status::OK);
    } else {
      StartWrite(&message_);
    }
  }

  void Append(StreamEvent event, std::optional<grpc::Status>* error, bool* last) {
    message_.mutable_text()->append(event.text);
    if (event.token.has_value()) {
      message_.add_token_ids(event.token->token);
      if (facts_.logprobs) {
        FillLogprobs(*event.token, parts_.context.tokenizer, message_.add_logprobs());
      }
    }
    if (!event.end.has_value()) return;
    if (event.end->status.ok()) {
      FillFinish(*event.end, message_.mutable_finish());
      *last = true;
    } else {
      *error = WireStatus(event.end->status);
    }
  }

  void FillFinish(const StreamEnd& end, v1::GenerateFinish* finish) const {
    finish->set_reason(WireReason(end.reason));
    finish->set_stop_string(end.matched_stop);
    if (end.reason == FinishReason::kStopToken) finish->set_stop_token_id(end.stop_token);
    FillUsage(end.usage, finish->mutable_usage());
    auto* timings = finish->mutable_timings();
    SetDuration(end.timings.queue, timings->mutable_queue());
    SetDuration(end.timings.adapter_load, timings->mutable_adapter_load());
    SetDuration(end.timings.first_token, timings->mutable_time_to_first_token());
    SetDuration(end.timings.total, timings->mutable_total());
    finish->set_request_id(facts_.request_id);
    finish->set_adapter(facts_.adapter);
    finish->set_adapter_version(facts_.adapter_version);
    finish->set_seed(facts_.seed);
  }

  void FinishOnce(const grpc::Status& status) {
    {
      std::lock_guard lock(mutex_);
      if (finished_) return;
      finished_ = true;
    }
    Finish(status);
  }

  std::shared_ptr<GenerateCall> self_;  // until OnDone

  std::mutex mutex_;
  bool writing_ = false;          // guarded by mutex_
  bool finished_ = false;         // guarded by mutex_
  bool fresh_ = true;             // guarded by mutex_: message_ may already hold the prompt
  v1::GenerateResponse message_;  // belongs to the write in flight, else guarded by mutex_
};

// One Score call: a request of the engine whose only event is its end.
class ScoreCall final : public grpc::ServerUnaryReactor,
                        private EngineCall,
                        public std::enable_shared_from_this<ScoreCall> {
 public:
  static ScoreCall* Start(const InferenceService::Parts& parts,
                          grpc::CallbackServerContext* context, const v1::ScoreRequest* wire,
                          v1::ScoreResponse* response) {
    auto call = std::make_shared<ScoreCall>(parts, response);
    call->self_ = call;
    const absl::Status status = call->Submit(context, *wire);
    if (!status.ok()) call->Finish(call->Refuse(status));
    return call.get();
  }

  ScoreCall(const InferenceService::Parts& parts, v1::ScoreResponse* response)
      : EngineCall(parts, /*stream_capacity=*/2), response_(response) {}

  void OnCancel() override { CancelRequest(); }
  void OnDone() override {
    stream_->SetListener(nullptr);
    self_.reset();
  }

 private:
  absl::Status Submit(grpc::CallbackServerContext* context, const v1::ScoreRequest& wire) {
    LORAD_RETURN_IF_ERROR(Identify(*context, wire.request_id()));
    LORAD_ASSIGN_OR_RETURN(auto request, ParseScore(wire, parts_.context));
    top_ = wire.top_logprobs();
    // The first token of a sequence has no prediction; it is reported without a log-probability.
    if (request->score_from == 0) first_token_ = request->prompt[0];
    return HandOver(context, wire.adapter(), std::move(request),
                    [self = shared_from_this()] { self->OnEvents(); });
  }

  void OnEvents() {
    for (StreamEvent& event : stream_->Take()) {
      if (!event.end.has_value()) continue;
      if (event.end->status.ok()) Fill(event);
      Finish(WireStatus(event.end->status));
    }
  }

  void Fill(StreamEvent& event) {
    double total = 0;
    bool greedy = true;
    if (first_token_.has_value()) {
      auto* token = response_->add_tokens();
      token->set_token_id(*first_token_);
      if (parts_.context.tokenizer != nullptr) {
        token->set_piece(parts_.context.tokenizer->TokenBytes(*first_token_));
      }
    }
    for (SampledToken& score : event.scores) {
      total += score.logprob;
      greedy &= !score.top.empty() && score.top[0].token == score.token;
      score.top.resize(std::min(score.top.size(), static_cast<size_t>(top_)));
      FillLogprobs(score, parts_.context.tokenizer, response_->add_tokens());
    }
    response_->set_total_logprob(total);
    response_->set_is_greedy(greedy);
    FillUsage(event.end->usage, response_->mutable_usage());
    response_->set_request_id(facts_.request_id);
    response_->set_adapter(facts_.adapter);
    response_->set_adapter_version(facts_.adapter_version);
  }

  v1::ScoreResponse* const response_;
  int top_ = 0;
  std::optional<TokenId> first_token_;
  std::shared_ptr<ScoreCall> self_;  // until OnDone
};

absl::Status NoTokenizer(std::string_view field) {
  return InvalidField(field, "the model has no tokenizer", "NO_TOKENIZER");
}

}  // namespace

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  return GenerateCall::Start(parts_, context, request);
}

grpc::ServerUnaryReactor* InferenceService::Score(grpc::CallbackServerContext* context,
                                                  const v1::ScoreRequest* request,
                                                  v1::ScoreResponse* response) {
  return ScoreCall::Start(parts_, context, request, response);
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(grpc::CallbackServerContext* context,
                                                     const v1::TokenizeRequest* request,
                                                     v1::TokenizeResponse* response) {
  const RequestContext& c = parts_.context;
  if (const auto caller = CallerOf(*context); !caller.ok()) {
    return FinishNow(context, caller.status());
  }
  if (c.tokenizer == nullptr) return FinishNow(context, NoTokenizer("text"));
  if (request->text().size() > c.max_prompt_bytes) {
    return FinishNow(context, InvalidField("text", "is too long", "PROMPT_TOO_LONG"));
  }
  EncodeOptions options;
  options.add_special_tokens = !request->has_add_special_tokens() || request->add_special_tokens();
  auto tokens = c.tokenizer->Encode(request->text(), options);
  if (!tokens.ok()) {
    return FinishNow(context, InvalidField("text", std::string(tokens.status().message())));
  }
  response->mutable_token_ids()->Assign(tokens->begin(), tokens->end());
  for (TokenId id : *tokens) response->add_pieces(c.tokenizer->TokenBytes(id));
  return FinishNow(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(grpc::CallbackServerContext* context,
                                                       const v1::DetokenizeRequest* request,
                                                       v1::DetokenizeResponse* response) {
  const RequestContext& c = parts_.context;
  if (const auto caller = CallerOf(*context); !caller.ok()) {
    return FinishNow(context, caller.status());
  }
  if (c.tokenizer == nullptr) return FinishNow(context, NoTokenizer("token_ids"));
  for (TokenId id : request->token_ids()) {
    if (id < 0 || id >= c.tokenizer->vocab_size()) {
      return FinishNow(context, InvalidField("token_ids", "a token id is outside the vocabulary"));
    }
  }
  const std::vector<TokenId> ids(request->token_ids().begin(), request->token_ids().end());
  response->set_text(c.tokenizer->Decode(
      ids, !request->has_skip_special_tokens() || request->skip_special_tokens()));
  return FinishNow(context, absl::OkStatus());
}

}  // namespace lorad
