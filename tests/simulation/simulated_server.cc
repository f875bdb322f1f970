#include "tests/simulation/simulated_server.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "tests/simulation/token_chain.h"

namespace lorad::sim {
namespace {

// How often Engine::WaitForWork looks at what nobody announces.
constexpr auto kPollWaiting = std::chrono::milliseconds(20);
constexpr auto kPollRunning = std::chrono::milliseconds(2);
constexpr size_t kSlowCapacity = 4;  // tokens of a slow reader's stream

Outcome OutcomeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return Outcome::kFinished;
    case absl::StatusCode::kCancelled:
      return Outcome::kCancelled;
    case absl::StatusCode::kDeadlineExceeded:
      return Outcome::kDeadline;
    case absl::StatusCode::kResourceExhausted:
      return Outcome::kRefused;
    default:
      return Outcome::kFailed;
  }
}

EngineOptions Completed(const ServerOptions& o, uint32_t pages) {
  EngineOptions engine = o.engine;
  engine.policy.page_tokens = o.cost.page_tokens;
  engine.vocab_size = kSimVocab;
  if (engine.max_model_len == 0) {
    engine.max_model_len = static_cast<int>(pages) * o.cost.page_tokens;
  }
  return engine;
}

ServerOptions WithPages(ServerOptions options) {
  if (options.pages == 0) options.pages = options.cost.pages;
  options.engine = Completed(options, options.pages);
  return options;
}

int Longest(const std::vector<SimRequest>& requests) {
  int longest = 0;
  for (const SimRequest& r : requests) {
    longest = std::max(longest, r.prompt_tokens + std::max(r.max_tokens, r.output_tokens));
  }
  return longest;
}

}  // namespace

uint64_t ImageBytes(const ServerOptions& options, int adapter) {
  const auto i = static_cast<size_t>(adapter);
  if (i < options.adapter_bytes.size()) return options.adapter_bytes[i];
  return options.cost.AdapterBytes(options.ranks[i % options.ranks.size()]);
}

uint32_t ImagePages(const ServerOptions& options, int adapter) {
  return options.cost.PagesOf(ImageBytes(options, adapter));
}

SimulatedServer::SimulatedServer(const ServerOptions& options,
                                 const std::vector<SimRequest>* requests, int number, int adapters,
                                 std::vector<double> weights, int tenants,
                                 Measurements* measurements)
    : options_(WithPages(options)),
      requests_(*requests),
      number_(number),
      measurements_(measurements),
      pool_(options_.pages, options_.cost.page_bytes,
            {.page_tokens = options_.cost.page_tokens, .prefix_cache = options_.prefix_cache}),
      executor_(options_.cost, &clock_, options_.pages, adapters),
      loads_(options_.cost, &clock_, &executor_, options_.fail_every),
      invariants_(options_.engine.policy, &pool_, Longest(*requests)),
      fairness_(static_cast<size_t>(tenants), weights),
      versions_(static_cast<size_t>(adapters)),
      weights_(std::move(weights)) {
  weights_.resize(static_cast<size_t>(tenants), 1);
  for (int a = 0; options_.warm && a < adapters; ++a) {
    loads_.Warm(static_cast<AdapterVersionId>(a + 1), ImageBytes(options_, a));
  }
  for (int t = 0; t < tenants; ++t) tenants_.push_back(fmt::format("t{}", t));
  engine_ = std::make_unique<Engine>(
      Engine::Parts{.executor = &executor_,
                    .pool = &pool_,
                    .tokenizer = nullptr,
                    .observer = this,
                    .clock = &clock_,
                    .load_adapter =
                        [this](auto version, auto pages, auto done) {
                          loads_.Start(std::move(version), std::move(pages), std::move(done));
                        }},
      options_.engine);
}

SimulatedServer::~SimulatedServer() = default;

uint64_t SimulatedServer::Scramble(uint64_t x) { return sim::Scramble(x); }

std::shared_ptr<const AdapterVersion> SimulatedServer::VersionOf(int adapter) {
  std::shared_ptr<AdapterVersion>& version = versions_[static_cast<size_t>(adapter)];
  if (version != nullptr) return version;
  version = std::make_shared<AdapterVersion>();
  version->id = static_cast<AdapterVersionId>(adapter + 1);
  version->name = fmt::format("a{}", adapter);
  version->version = 1;
  version->image_bytes = ImageBytes(options_, adapter);
  version->pages = ImagePages(options_, adapter);
  return version;
}

std::unique_ptr<GenerationRequest> SimulatedServer::Build(size_t request, Open* open) const {
  const SimRequest& r = requests_[request];
  auto made = std::make_unique<GenerationRequest>();
  made->prompt.resize(static_cast<size_t>(r.prompt_tokens));
  // Texts: one system prompt for each adapter, then one for each request.
  const auto system = static_cast<uint64_t>(r.adapter + 1);
  for (int i = 0; i < r.prompt_tokens; ++i) {
    made->prompt[static_cast<size_t>(i)] =
        i < r.shared_tokens ? TextToken(system, i) : TextToken((uint64_t{1} << 40) + request, i);
  }
  made->sampling.seed = SeedFor(request, r.output_tokens);
  made->sampling.temperature = 0;
  made->sampling.stop_tokens = {kSimStop};
  made->max_tokens = std::max(r.max_tokens, r.output_tokens);
  made->want_text = false;
  made->tenant = tenants_[static_cast<size_t>(r.tenant)];
  made->tenant_weight = weights_[static_cast<size_t>(r.tenant)];
  made->priority = r.priority;
  made->arrival = At(r.start_s);
  if (r.deadline_s != kNever) made->deadline = At(r.deadline_s);
  made->stream = open->stream = std::make_shared<TokenStream>(
      r.read_every_s > 0 ? kSlowCapacity : static_cast<size_t>(made->max_tokens) + 2);
  open->chain = ChainStart(static_cast<AdapterVersionId>(r.adapter + 1));
  for (TokenId token : made->prompt) open->chain = ChainNext(open->chain, token);
  return made;
}

// Somebody comes or leaves: time has passed until then, and it takes a step at once if it is idle.
void SimulatedServer::WakeAt(double seconds) {
  clock_.AdvanceTo(At(seconds));
  next_ = std::min(next_.value_or(clock_.Now()), clock_.Now());
}

void SimulatedServer::Submit(size_t request) {
  const SimRequest& r = requests_[request];
  WakeAt(r.start_s);
  Open& open = open_[request];
  open.request = request;
  auto made = Build(request, &open);
  if (r.adapter >= 0) {
    made->adapters.push_back({.version = VersionOf(r.adapter), .weight = 1.0f});
  }
  open.stream->SetListener([this, place = &open] { OnReady(place); });
  const absl::StatusOr<RequestId> id = engine_->Submit(std::move(made));
  RequestRecord& record = measurements_->record(request);
  record.server = static_cast<int16_t>(number_);
  Note(request * 4 + (id.ok() ? 0 : 1));
  if (!id.ok()) {
    record.outcome = OutcomeOf(id.status());
    open_.erase(request);
    return;
  }
  open.id = *id;
  overtakes_.Wait({r.tenant, r.priority}, request);
  fairness_.AddWaiting(r.tenant, 1);
  totals_.most_waiting = std::max(totals_.most_waiting, engine_->waiting());
}

void SimulatedServer::Cancel(size_t request) {
  const auto open = open_.find(request);
  if (open == open_.end()) return;
  WakeAt(requests_[request].cancel_s);
  Note(request * 4 + 2);
  engine_->Cancel(open->second.id);
}

absl::Status SimulatedServer::Step() {
  clock_.AdvanceTo(*next_);
  loads_.Complete();
  ReadSlowly();
  executor_.SetSlowdown(loads_.reading() ? options_.cost.beside_load : 1);
  const bool ran = engine_->Step();
  for (Open* open : std::exchange(ready_, {})) Drain(open);
  next_ = ran ? std::optional(clock_.Now()) : IdleUntil();
  absl::Status status = CheckAll(ran);
  if (status.ok()) return status;
  return absl::InternalError(fmt::format("{}, on server {} in its step {} at {:.6f} s",
                                         std::string(status.message()), number_, engine_steps_,
                                         SecondsAt(clock_.Now())));
}

std::optional<TimePoint> SimulatedServer::IdleUntil() const {
  std::optional<TimePoint> until = loads_.next();
  if (engine_->unfinished() > 0) {
    const bool soon = loads_.copying() || engine_->waiting() < engine_->unfinished();
    const TimePoint poll = clock_.Now() + (soon ? kPollRunning : kPollWaiting);
    until = std::min(until.value_or(poll), poll);
  }
  if (!readings_.empty()) {
    until = std::min(until.value_or(readings_.top().first), readings_.top().first);
  }
  return until;
}

absl::Status SimulatedServer::CheckAll(bool ran) {
  ++engine_steps_;
  if (!fault_.empty()) return absl::InternalError(fault_);
  absl::Status status = invariants_.Check({.ran = ran,
                                           .loads = loads_.next().has_value() || loads_.copying(),
                                           .slow_readers = !readings_.empty(),
                                           .unfinished = engine_->unfinished(),
                                           .waiting = engine_->waiting(),
                                           .moves = moves_},
                                          executor_);
  if (!status.ok()) return status;
  const int every = options_.validate_every;
  if (every > 0 && engine_steps_ % static_cast<uint64_t>(every) == 0) {
    return engine_->ValidateBooks();
  }
  return absl::OkStatus();
}

absl::Status SimulatedServer::CheckDrained() const {
  if (!open_.empty()) {
    return absl::InternalError(fmt::format("I3: request {} has not ended", open_.begin()->first));
  }
  if (absl::Status status = engine_->ValidateBooks(); !status.ok()) return status;
  return invariants_.CheckDrained();
}

void SimulatedServer::OnReady(Open* open) {
  const double every = requests_[open->request].read_every_s;
  if (every <= 0) return ready_.push_back(open);
  if (std::exchange(open->read_due, true)) return;
  readings_.push({clock_.Now() + For(every), open->request});
}

void SimulatedServer::ReadSlowly() {
  while (!readings_.empty() && readings_.top().first <= clock_.Now()) {
    Open& open = open_.at(readings_.top().second);
    readings_.pop();
    open.read_due = false;
    Drain(&open);
  }
}

void SimulatedServer::Drain(Open* open) {
  bool ended = false;
  for (StreamEvent& event : open->stream->Take()) {
    if (ended) Fault(fmt::format("I3: something follows the end of request {}", open->request));
    if (event.token.has_value()) Accept(open, event.token->token);
    if (!event.end.has_value()) continue;
    ended = true;
    End(open, *event.end);
  }
  if (!ended) return;
  open->stream->SetListener(nullptr);
  open_.erase(open->request);
}

void SimulatedServer::Accept(Open* open, TokenId token) {
  const SimRequest& r = requests_[open->request];
  const TimePoint now = clock_.Now();
  if (open->tokens++ == 0) {
    open->first = now;
  } else {
    const double gap = Seconds(now - open->last);
    open->longest_gap = std::max(open->longest_gap, gap);
    measurements_->AddGap(gap);
  }
  open->last = now;
  Note(open->request * 4 + 3 + (static_cast<uint64_t>(token) << 40));
  measurements_->AddService(r.tenant, now, 0, 1);
  fairness_.AddService(r.tenant, 0, 1);
  const TokenId expected = open->tokens == r.output_tokens ? kSimStop : TokenAfter(open->chain);
  if (options_.check_outputs && token != expected) {
    Fault(fmt::format("I9: token {} of request {} is {} instead of {}", open->tokens, open->request,
                      token, expected));
  }
  open->chain = ChainNext(open->chain, token);
}

void SimulatedServer::End(Open* open, const StreamEnd& end) {
  const SimRequest& r = requests_[open->request];
  RequestRecord& record = measurements_->record(open->request);
  if (record.outcome != Outcome::kPending) {
    Fault(fmt::format("I3: request {} ends twice", open->request));
  }
  ++moves_;
  if (!open->admitted) {
    fairness_.AddWaiting(r.tenant, -1);
    overtakes_.Leave({r.tenant, r.priority}, open->request);
  }
  record.outcome = OutcomeOf(end.status);
  record.output_tokens = end.usage.output_tokens;
  record.cached_tokens = end.usage.cached_tokens;
  record.preemptions = end.timings.preemptions;
  record.queue_s = static_cast<float>(Seconds(end.timings.queue));
  record.total_s = static_cast<float>(SecondsAt(clock_.Now()) - r.start_s);
  if (open->tokens > 0) record.ttft_s = static_cast<float>(SecondsAt(open->first) - r.start_s);
  if (open->tokens > 1) {
    record.gap_mean_s = static_cast<float>(Seconds(open->last - open->first) / (open->tokens - 1));
    record.gap_max_s = static_cast<float>(open->longest_gap);
  }
  if (record.outcome == Outcome::kFinished && open->tokens != r.output_tokens) {
    Fault(fmt::format("I9: request {} finished with {} tokens instead of {}", open->request,
                      open->tokens, r.output_tokens));
  }
  Note(open->request * 8 + static_cast<uint64_t>(record.outcome));
  Note(static_cast<uint64_t>(clock_.Now().time_since_epoch().count()));
}

void SimulatedServer::Fault(std::string what) {
  if (fault_.empty()) fault_ = std::move(what);
}

void SimulatedServer::OnStep(const StepReport& report) {
  ++totals_.steps;
  // What a slow reader's request holds may be taken for other reasons.
  if (report.preemptions > 0 && readings_.empty() &&
      options_.engine.policy.admission == AdmissionMode::kNoEvict) {
    Fault("I9: somebody is preempted although all outputs have room");
  }
  totals_.preemptions += static_cast<uint64_t>(report.preemptions);
  totals_.queried_tokens += static_cast<uint64_t>(report.queried_tokens);
  totals_.cached_tokens += static_cast<uint64_t>(report.cached_tokens);
  totals_.batch += static_cast<uint64_t>(report.sequences);
  totals_.adapters += static_cast<uint64_t>(report.adapters);
}

void SimulatedServer::OnAdmit(const GenerationRequest& request) {
  const size_t index = RequestOf(request.sampling.seed);
  Open& open = open_.at(index);
  if (std::exchange(open.admitted, true)) return;
  ++moves_;
  const SimRequest& r = requests_[index];
  Note(index);
  totals_.most_overtaken =
      std::max(totals_.most_overtaken, overtakes_.Admit({r.tenant, r.priority}, index));
  measurements_->AddService(r.tenant, clock_.Now(), r.prompt_tokens, 0);
  fairness_.AddService(r.tenant, r.prompt_tokens, 0);
  fairness_.AddWaiting(r.tenant, -1);
}

void SimulatedServer::OnEvictions(int adapters) {
  totals_.evictions += static_cast<uint64_t>(adapters);
}

}  // namespace lorad::sim
