// The engine's outside: submission, inbox, thread. The step itself is in engine_step.cc.
#include "server/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <future>
#include <utility>

#include "memory/base/check.h"
#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"

namespace lorad {
namespace {

absl::Status ShuttingDown() {
  return WithRetryAfter(
      WithReason(absl::UnavailableError("the server is shutting down"), "SHUTTING_DOWN"),
      std::chrono::seconds(1));
}

}  // namespace

Engine::Engine(Parts parts, EngineOptions options)
    : parts_(std::move(parts)),
      options_(std::move(options)),
      pool_(*parts_.pool),
      ledger_(options_.policy),
      queue_(&options_.policy, &ledger_),
      output_share_(options_.policy),
      pipeline_(parts_.executor),
      gate_({.requests = options_.max_waiting,
             .prompt_tokens = options_.max_waiting_tokens,
             .bytes = options_.max_waiting_bytes},
            options_.policy.objectives) {
  LORAD_CHECK(parts_.executor != nullptr && parts_.clock != nullptr);
  LORAD_CHECK(options_.max_model_len > 0 && options_.vocab_size > 0);
  if (options_.validate_books) pool_.pages().NoteFreed();
}

Engine::~Engine() { Stop(); }

void Engine::Start() {
  notifier_.Start();
  thread_ = std::thread([this] { Run(); });
}

void Engine::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Engine::Run() {
  const auto stopping = [this] {
    std::lock_guard lock(mutex_);
    return stopping_;
  };
  while (!stopping() && healthy()) {
    if (!Step()) WaitForWork();
  }
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
  }
  DrainInbox();
  Advance(0);
  FailAll(ShuttingDown());
  Publish();
}

absl::StatusOr<RequestId> Engine::Submit(std::unique_ptr<GenerationRequest> request) {
  const GenerationRequest& r = *request;
  if (!healthy() || draining()) return ShuttingDown();
  if (r.samples != 1) return InvalidField("samples", "one for now");
  if (r.prompt.empty()) return InvalidField("prompt", "must have at least one token");
  if (r.score ? r.max_tokens != 0 : r.max_tokens < 1) {
    return InvalidField("max_tokens", "must be at least 1");
  }
  const size_t length = r.prompt.size() + static_cast<size_t>(r.max_tokens);
  if (length > static_cast<size_t>(options_.max_model_len)) {
    return InvalidField(
        "prompt",
        fmt::format("{} prompt tokens and max_tokens {} exceed the longest sequence "
                    "of {} tokens",
                    r.prompt.size(), r.max_tokens, options_.max_model_len),
        "PROMPT_TOO_LONG");
  }
  uint32_t pages = PagesFor(length, options_.policy.page_tokens);
  for (const AdapterRef& adapter : r.adapters) pages += adapter.version->pages;
  if (const uint32_t total = pool_.pages().total_pages(); pages > total) {
    return WithReason(
        absl::ResourceExhaustedError(fmt::format(
            "the request needs {} pages with its adapter; the pool has {} in all", pages, total)),
        "LARGER_THAN_POOL");
  }
  const RequestId id = next_id_.fetch_add(1);
  LORAD_RETURN_IF_ERROR(gate_.Enter(id, request.get(), parts_.clock->Now()));
  unfinished_.fetch_add(1);
  if (!Post(SubmitMessage{id, std::move(request)})) {
    gate_.Leave(id);
    unfinished_.fetch_sub(1);
    return ShuttingDown();
  }
  return id;
}

void Engine::Cancel(RequestId id) { Post(CancelMessage{id}); }

void Engine::Preload(std::shared_ptr<const AdapterVersion> version) {
  Post(PreloadMessage{std::move(version)});
}

void Engine::Retire(AdapterVersionId id) { Post(RetireMessage{id}); }

void Engine::SetPinned(std::shared_ptr<const AdapterVersion> version, bool pinned) {
  Post(PinMessage{std::move(version), pinned});
}

void Engine::BeginDrain() { draining_.store(true); }

EngineSnapshot Engine::Snapshot() {
  std::promise<EngineSnapshot> promise;
  std::future<EngineSnapshot> result = promise.get_future();
  if (!thread_.joinable() ||
      !Post(CallMessage([this, &promise] { promise.set_value(TakeSnapshot()); }))) {
    return TakeSnapshot();
  }
  return result.get();
}

bool Engine::Post(Message message) {
  {
    std::lock_guard lock(mutex_);
    if (closed_) return false;
    inbox_.push_back(std::move(message));
  }
  wake_.notify_one();
  return true;
}

void Engine::WaitForWork() {
  // Readers that empty a full stream do not post, nor do transfers that end: both are looked at
  // again soon. Deadlines likewise.
  const auto patience = !running_.empty() || !filling_.empty()  ? std::chrono::milliseconds(2)
                        : !waiting_.empty() || !parked_.empty() ? std::chrono::milliseconds(20)
                                                                : std::chrono::milliseconds(1000);
  std::unique_lock lock(mutex_);
  wake_.wait_for(lock, patience, [this] { return stopping_ || !inbox_.empty(); });
}

void Engine::DrainInbox() {
  {
    std::lock_guard lock(mutex_);
    std::swap(inbox_, drained_);
  }
  for (Message& message : drained_) {
    std::visit([this](auto& m) { Handle(std::move(m)); }, message);
  }
  drained_.clear();
}

void Engine::Handle(SubmitMessage message) {
  auto sequence = std::make_unique<Sequence>(message.id, std::move(message.request), &pool_.pages(),
                                             parts_.tokenizer, options_.vocab_size);
  sequence->scope = ScopeOf(*sequence->request);
  sequence->drawn = parts_.executor->CanDraw(sequence->request->sampling);
  if (const AdapterVersion* adapter = sequence->adapter(); adapter != nullptr) {
    ++users_[adapter->id];
    adapter->activity->active.fetch_add(1);
  }
  sequence->priority = ClassOf(sequence->request->priority, options_.policy);
  sequence->tenant = ledger_.Arrive(sequence->request->tenant, sequence->request->tenant_weight,
                                    sequence->priority);
  sequences_[message.id] = sequence.get();
  Watch(*sequence, sequence->request->arrival);
  Wait(std::move(sequence));
}

void Engine::Handle(CancelMessage message) {
  const auto found = sequences_.find(message.id);
  if (found == sequences_.end()) return;
  Finish(*found->second, WithReason(absl::CancelledError("cancelled by the client"), "CANCELLED"),
         FinishReason::kLength);
}

void Engine::Handle(PreloadMessage message) { preloads_.push_back(std::move(message.version)); }

void Engine::Handle(CallMessage message) { message(); }

}  // namespace lorad
