// What the engine does with pages and adapters: admission and preemption, loads, pins, retirement.
// Engine thread only.
#include <algorithm>
#include <chrono>
#include <utility>

#include "memory/base/check.h"
#include "server/engine.h"

namespace lorad {
namespace {

// Of a step's rows, so many must be prompt tokens for its time to say what a prompt token costs.
constexpr double kPrefillShare = 0.5;
constexpr double kCostSmoothing = 0.1;  // weight of a new measurement

int64_t UnixMillisNow() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

PrefixScope Engine::ScopeOf(const GenerationRequest& request) const {
  PrefixScope scope{.tenant = request.tenant, .salt = request.cache_salt};
  if (!request.adapters.empty()) {
    scope.adapter = request.adapters[0].version->id;
    scope.weight = request.adapters[0].weight;
  } else if (options_.share_base_prefixes) {
    scope.tenant.clear();
  }
  return scope;
}

// Asks the cache again only if it has changed since.
void Engine::FindPrefix(Sequence& s) {
  const PrefixCache& prefixes = pool_.prefixes();
  if (s.found_epoch == prefixes.epoch() + 1) return;
  s.found_epoch = prefixes.epoch() + 1;
  s.found = prefixes.Find(s.scope, s.tokens, s.max_cached_tokens());
}

// A sequence may need more pages to come to its end than there are, so what others give back
// matters.
bool Engine::MayLackPages(uint32_t available) const {
  uint64_t lacking = 0;
  for (const auto& s : running_) {
    const auto last = static_cast<size_t>(s->prompt_tokens() + s->request->max_tokens);
    const uint32_t pages = PagesFor(last, options_.policy.page_tokens);
    lacking += pages - std::min(pages, s->pages.size());
  }
  return lacking > available;
}

// What each running sequence would give back if it ended.
void Engine::FindReleasablePages() {
  for (size_t i = 0; i < running_.size(); ++i) {
    const Sequence& s = *running_[i];
    running_view_[i].releasable_pages =
        static_cast<int>(s.pages.size() - s.lease.pages() + s.lease.sole_pages());
  }
}

void Engine::Preempt(RequestId id, int* reason) {
  auto at =
      std::find_if(running_.begin(), running_.end(), [id](const auto& s) { return s->id == id; });
  LORAD_CHECK(at != running_.end() && (*at)->ahead.steps == 0);
  std::unique_ptr<Sequence> s = std::move(*at);
  running_.erase(at);
  ReleaseMemory(*s, /*keep_prefix=*/true);
  s->running = false;
  s->computed = 0;
  s->found_epoch = 0;
  s->scores.clear();
  if (s->paused_since != TimePoint::max()) {
    ++plan_report_.parked;
    parked_.push_back(std::move(s));
    return;
  }
  ++s->preemptions;
  ++*reason;
  Return(std::move(s));
}

// It waits for a place again.
void Engine::Return(std::unique_ptr<Sequence> s) {
  NoteQueue(*s, AdmissionGate::Change::kReturned);
  Wait(std::move(s));
}

void Engine::Admit(RequestId id) {
  const auto at = waiting_.find(id);
  std::unique_ptr<Sequence> s = std::move(at->second);
  s->aged = queue_.FirstLevel(s->priority, now_) < static_cast<int>(s->priority);
  queue_.Admit(id, now_);
  waiting_.erase(at);
  for (const AdapterRef& ref : s->request->adapters) {
    s->adapters.push_back({.image = held_.at(ref.version->id).image.get(),
                           .pages = pool_.adapters().Lease(ref.version->id, now_),
                           .weight = ref.weight,
                           .transfer = held_.at(ref.version->id).transfer.get()});
    ref.version->activity->last_unix_ms.store(UnixMillisNow());
  }
  // Asked in the same words as for the plan, so that it is given the very pages that were counted.
  PrefixCache::Hit hit =
      pool_.prefixes().Acquire(s->scope, s->tokens, s->max_cached_tokens(), &s->pages);
  LORAD_CHECK(hit.tokens == s->found.tokens);
  s->lease = std::move(hit.lease);
  s->computed = hit.tokens;
  charges_[{s->tenant, s->priority}].cached +=
      std::max(0, std::min(hit.tokens, s->prompt_tokens()) - s->charged);
  s->charged = std::max(s->charged, hit.tokens);
  if (hit.copy_tokens > 0) {
    s->copy_from = hit.copy_page;
    copy_leases_.push_back(std::move(hit.copy_lease));
  }
  plan_report_.cached_tokens += hit.tokens;
  plan_report_.queried_tokens += s->max_cached_tokens();
  s->running = true;
  if (!std::exchange(s->admitted_before, true)) {
    s->first_admission = now_;
    s->cached_tokens = hit.tokens;
    for (const AdapterRef& ref : s->request->adapters) {
      ref.version->activity->requests.fetch_add(1);
    }
  }
  NoteQueue(*s, AdmissionGate::Change::kAdmitted);
  if (parts_.observer != nullptr) parts_.observer->OnAdmit(*s->request);
  auto place = std::upper_bound(running_.begin(), running_.end(), s->id,
                                [](RequestId i, const auto& r) { return i < r->id; });
  running_.insert(place, std::move(s));
}

void Engine::TakePages(Sequence& s, uint32_t new_pages) {
  // The plan counted what can be evicted as available; here it is really taken.
  MakeRoom(new_pages);
  LORAD_CHECK(s.pages.Grow(new_pages));
  if (!s.copy_from.has_value()) return;
  // The first page that is not shared begins as a copy of another sequence's.
  page_copies_.push_back({.from = *s.copy_from, .to = s.pages.ids()[s.lease.pages()]});
  s.copy_from.reset();
}

void Engine::MakeRoom(uint32_t free_pages) {
  if (pool_.pages().free_pages() < free_pages) SpareKept(true);
  if (!pool_.MakeRoom(free_pages)) {
    SpareKept(false);  // there is nothing else left
    LORAD_CHECK(pool_.MakeRoom(free_pages));
  }
  PoisonFreed();
}

// What the next steps want goes last, for as long as this step takes pages.
void Engine::SpareKept(bool spared) {
  if (std::exchange(sparing_, spared) == spared) return;
  for (AdapterVersionId id : plan_.keep) pool_.adapters().SetSpared(id, spared);
}

void Engine::StartLoad(std::shared_ptr<const AdapterVersion> version) {
  NoteDepartures();  // its own, if it was here before
  MakeRoom(version->pages);
  const std::span<const uint32_t> pages =
      pool_.adapters().BeginLoad(version->id, version->pages, pool_.available_pages(), now_);
  LORAD_CHECK(!pages.empty());
  load_started_[version->id] = now_;
  held_[version->id] = {.name = version->name,
                        .version = version->version,
                        .image_bytes = version->image_bytes,
                        .image = nullptr,
                        .transfer = nullptr,
                        .activity = version->activity};
  image_bytes_ += version->image_bytes;
  version->activity->state.store(AdapterState::kLoading);
  queue_.SetAdapterState(version->id, AdapterState::kLoading);
  if (parts_.observer != nullptr) parts_.observer->OnAdapterState(version->name);
  std::vector<uint32_t> copy(pages.begin(), pages.end());
  parts_.load_adapter(version, std::move(copy),
                      [this, version](absl::StatusOr<LoadedAdapter> loaded) {
                        Post(LoadedMessage{version, std::move(loaded)});
                      });
}

void Engine::StartPreloads() {
  for (size_t left = preloads_.size(); left > 0; --left) {
    if (static_cast<int>(load_started_.size()) >= options_.policy.max_adapter_loads) return;
    std::shared_ptr<const AdapterVersion> version = std::move(preloads_.front());
    preloads_.pop_front();
    const AdapterCache& cache = pool_.adapters();
    if (cache.IsResident(version->id) || cache.IsLoading(version->id)) continue;
    if (version->activity->superseded.load()) continue;  // replaced while it waited for its turn
    if (version->pages <= plan_.spare_pages) {
      plan_.spare_pages -= version->pages;
      StartLoad(std::move(version));
    } else if (pinned_.contains(version->id)) {
      // A mere preload that finds no room is forgotten; a pin is kept for better times.
      preloads_.push_back(std::move(version));
    }
  }
}

void Engine::Handle(LoadedMessage message) {
  const AdapterVersionId id = message.version->id;
  const absl::Status status = message.loaded.status();
  const auto started = load_started_.find(id);
  LORAD_CHECK(started != load_started_.end());
  const Duration duration = now_ - started->second;
  if (status.ok()) {
    UseLoaded(*message.version, *std::move(message.loaded));
  } else {
    pool_.adapters().AbortLoad(id);
    ForgetHeld(id);
    load_started_.erase(started);
    message.version->activity->state.store(AdapterState::kStored);
    message.version->activity->SetLastError(std::string(status.message()));
    queue_.SetAdapterState(id, AdapterState::kStored);
    FailWaitingFor(id, status);
  }
  if (parts_.observer != nullptr) {
    parts_.observer->OnAdapterLoad(*message.version, duration, status);
    parts_.observer->OnAdapterState(message.version->name);
  }
  // Nobody wants it any more.
  if (retiring_.contains(id) && !users_.contains(id)) RetireNow(id);
}

// The image may be used from now on, whether it is whole or on its way.
void Engine::UseLoaded(const AdapterVersion& version, LoadedAdapter loaded) {
  Held& held = held_.at(version.id);
  held.image = std::move(loaded.image);
  held.transfer = std::move(loaded.transfer);
  version.activity->state.store(AdapterState::kResident);
  version.activity->SetLastError("");
  const TimePoint started = load_started_.at(version.id);
  queue_.SetAdapterState(version.id, AdapterState::kResident);
  for (RequestId id : queue_.WaitingFor(version.id)) {
    Sequence& s = *waiting_.at(id);
    if (!s.admitted_before) s.adapter_load = now_ - std::max(s.request->arrival, started);
  }
  if (held.transfer == nullptr) {
    FinishLoad(version.id);
  } else {
    pool_.adapters().BeginFill(version.id, now_);
    filling_.push_back(version.id);
  }
  if (pinned_.contains(version.id)) pool_.adapters().SetPinned(version.id, true);
}

void Engine::FinishLoad(AdapterVersionId id) {
  const auto started = load_started_.find(id);
  pool_.adapters().FinishLoad(id, Seconds(now_ - started->second), now_);
  rates_.NoteLoad(now_);
  load_started_.erase(started);
}

// What is all in its pages is an adapter like any other.
void Engine::FinishTransfers() {
  absl::Status status;
  std::erase_if(filling_, [&](AdapterVersionId id) {
    Held& held = held_.at(id);
    if (!held.transfer->Done()) return false;
    status.Update(held.transfer->Wait());
    for (const auto& s : running_) {
      for (AdapterUse& use : s->adapters) {
        if (use.transfer == held.transfer.get()) use.transfer = nullptr;
      }
    }
    held.transfer.reset();
    FinishLoad(id);
    return true;
  });
  if (!status.ok()) BreakDevice(status);
}

void Engine::Handle(PinMessage message) {
  const AdapterVersionId id = message.version->id;
  AdapterCache& cache = pool_.adapters();
  if (message.pinned) {
    if (!pinned_.insert(id).second) return;
    if (!cache.IsResident(id)) preloads_.push_back(std::move(message.version));
  } else if (pinned_.erase(id) == 0) {
    return;
  }
  if (cache.IsResident(id)) cache.SetPinned(id, message.pinned);
}

void Engine::Handle(RetireMessage message) {
  pinned_.erase(message.id);
  if (pool_.adapters().IsResident(message.id)) pool_.adapters().SetPinned(message.id, false);
  if (users_.contains(message.id) || pool_.adapters().IsLoading(message.id)) {
    retiring_.insert(message.id);
  } else {
    RetireNow(message.id);
  }
}

// The pages of a version that nobody is on: its image's and those of prompts that used it.
void Engine::RetireNow(AdapterVersionId id) {
  retiring_.erase(id);
  pool_.adapters().Retire(id);
  pool_.prefixes().RetireAdapter(id);
}

// What a sequence that has ended holds, once no step under way has it.
void Engine::LetGo(Sequence& s) {
  LORAD_CHECK(s.ahead.steps == 0);
  const AdapterVersion* adapter = s.adapter();
  // Nobody will ask for the beginning of a prompt on a version that is on its way out.
  const bool retiring = adapter != nullptr && retiring_.contains(adapter->id);
  ReleaseMemory(s, /*keep_prefix=*/healthy() && !retiring);
  if (adapter != nullptr) LeaveAdapter(*adapter);
}

// One request of the version has let go of it.
void Engine::LeaveAdapter(const AdapterVersion& version) {
  const auto users = users_.find(version.id);
  LORAD_CHECK(users != users_.end());
  if (--users->second > 0) return;
  users_.erase(users);
  if (retiring_.contains(version.id) && !pool_.adapters().IsLoading(version.id)) {
    RetireNow(version.id);
  }
}

// Gives back what a running sequence holds; with `keep_prefix` the cache keeps what it can.
void Engine::ReleaseMemory(Sequence& s, bool keep_prefix) {
  if (keep_prefix && s.computed > 0) {
    pool_.prefixes().Insert(s.scope, s.computed_tokens(), /*tail=*/true, &s.pages, &s.lease);
  }
  s.lease.Release();
  s.pages.Clear();
  s.copy_from.reset();
  if (s.adapters.empty()) return;
  s.adapters.clear();
  for (const AdapterRef& ref : s.request->adapters) {
    pool_.adapters().Release(ref.version->id, now_);
  }
}

// Images that left the pool, evicted or retired.
void Engine::NoteDepartures() {
  for (AdapterVersionId id : pool_.adapters().TakeEvicted()) {
    const auto held = held_.find(id);
    if (held == held_.end()) continue;
    held->second.activity->state.store(AdapterState::kStored);
    queue_.SetAdapterState(id, AdapterState::kStored);
    if (parts_.observer != nullptr) parts_.observer->OnAdapterState(held->second.name);
    ForgetHeld(id);
  }
}

void Engine::ForgetHeld(AdapterVersionId id) {
  const auto held = held_.find(id);
  LORAD_CHECK(held != held_.end());
  image_bytes_ -= held->second.image_bytes;
  held_.erase(held);
}

// What a step says of the cost of computing prompts again: eviction weighs by it.
void Engine::MeasureTokenCost() {
  const int rows = report_.prefill_tokens + report_.decode_tokens;
  if (rows == 0 || report_.prefill_tokens < kPrefillShare * rows) return;
  const double measured = Seconds(report_.execute) / rows;
  const double known =
      std::exchange(token_cost_measured_, true) ? pool_.prefixes().seconds_per_token() : measured;
  pool_.prefixes().set_seconds_per_token(known + kCostSmoothing * (measured - known));
}

// With validate_books, what is free holds nothing that may be read.
void Engine::PoisonFreed() {
  if (!options_.validate_books) return;
  const std::vector<uint32_t> freed = pool_.pages().TakeFreed();
  if (!freed.empty()) parts_.executor->PoisonPages(freed);
}

absl::Status Engine::ValidateBooks() const {
  std::vector<const PageList*> tables;
  tables.reserve(running_.size());
  for (const auto& s : running_) tables.push_back(&s->pages);
  for (const auto& [id, s] : waiting_) tables.push_back(&s->pages);
  for (const auto& s : ending_) tables.push_back(&s->pages);
  for (const EngineStep& step : pipeline_.steps()) tables.push_back(&step.exchanged);
  absl::Status status = pool_.Validate(tables);
  status.Update(queue_.Validate());
  if (queue_.size() != waiting_.size()) {
    status.Update(absl::InternalError("the queue has others than those who wait"));
  }
  return status;
}

}  // namespace lorad
