// One step of the engine until it is submitted: expire -> plan -> commit -> submit. Engine thread
// only.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "memory/base/check.h"
#include "memory/base/error_detail.h"
#include "server/engine.h"

namespace lorad {
namespace {

constexpr size_t kMaxWaitingInView = 1024;  // bounds the planner's time, whatever the queue
constexpr TokenId kUnderWay = -1;           // stands for a token that is not known yet

// The output of the sequence is on its way and as long as it may be, or as its reader has room for.
bool HasEnoughAhead(const Sequence& s) {
  if (s.ahead.sampled == 0) return false;
  return s.output_tokens() + s.ahead.sampled >= s.request->max_tokens ||
         s.request->stream->full(static_cast<size_t>(s.ahead.sampled));
}

}  // namespace

bool Engine::Step() {
  now_ = parts_.clock->Now();
  DrainInbox();
  FinishTransfers();
  Expire();
  Plan();
  Commit();
  const bool submitted = Submit();
  const bool advanced = Advance(submitted && pipeline_.MayBeFollowed() ? 1 : 0);
  Publish();
  return submitted || advanced;
}

// In the order of the lists, so that equal runs end alike.
void Engine::Expire() {
  const auto end_if_late = [this](Sequence& s) {
    if (s.finished) return;
    absl::Status why = WhyEnd(s);
    if (!why.ok()) Finish(s, std::move(why), FinishReason::kLength);
  };
  for (const auto& s : running_) {
    if (!s->request->stream->full()) {
      s->paused_since = TimePoint::max();
    } else if (s->paused_since == TimePoint::max()) {
      s->paused_since = now_;
    }
    end_if_late(*s);
  }
  for (const auto& s : waiting_) end_if_late(*s);
  RemoveFinished();
}

// Why time is over for a sequence; OK: it is not.
absl::Status Engine::WhyEnd(const Sequence& s) const {
  if (s.request->deadline <= now_) {
    return WithReason(absl::DeadlineExceededError("the deadline passed"), "DEADLINE");
  }
  if (s.paused_since != TimePoint::max() && now_ - s.paused_since > options_.slow_reader_timeout) {
    return WithReason(absl::ResourceExhaustedError("the client reads slower than tokens are made"),
                      "SLOW_CONSUMER");
  }
  const bool waits = !s.admitted_before && s.adapter() != nullptr &&
                     now_ - s.request->arrival > options_.adapter_wait_timeout &&
                     StateOf(s) != AdapterState::kResident;
  if (!waits) return absl::OkStatus();
  return WithRetryAfter(
      WithReason(absl::UnavailableError(
                     fmt::format("adapter \"{}\" could not be loaded in time", s.adapter()->name)),
                 "ADAPTER_LOAD_TIMEOUT"),
      std::chrono::seconds(1));
}

AdapterState Engine::StateOf(const Sequence& sequence) const {
  const AdapterVersion* adapter = sequence.adapter();
  if (adapter == nullptr) return AdapterState::kNone;
  const AdapterCache& cache = pool_.adapters();
  if (cache.IsResident(adapter->id)) return AdapterState::kResident;
  return cache.IsLoading(adapter->id) ? AdapterState::kLoading : AdapterState::kStored;
}

void Engine::Plan() {
  MakePlan();
  // What takes something away is decided when nothing is under way: by then there may be room.
  if (pipeline_.empty() || (plan_.preempt.empty() && plan_.refuse.empty())) return;
  Advance(0);
  MakePlan();
}

void Engine::MakePlan() {
  running_view_.clear();
  for (const auto& s : running_) {
    running_view_.push_back({.id = s->id,
                             .known_tokens = s->known_ahead(),
                             .computed_tokens = s->computed_ahead(),
                             .held_pages = static_cast<int>(s->pages.size()),
                             .paused = s->paused_since != TimePoint::max() || HasEnoughAhead(*s)});
  }
  // A decode takes at most one page, so preemption is only near where there are fewer.
  const uint32_t available = pool_.available_pages();
  if (available < running_.size()) FindReleasablePages();
  PlanWaiting();
  const uint32_t free = pool_.pages().free_pages();
  const PlannerView view{.running = running_view_,
                         .waiting = waiting_view_,
                         .free_pages = free,
                         .evictable_pages = available - free,
                         .adapter_loads_in_flight = static_cast<int>(load_started_.size())};
  PlanStep(view, options_.policy, &plan_);
}

void Engine::PlanWaiting() {
  waiting_view_.clear();
  // Only so many can be admitted: the others need not be looked up.
  int lookups = options_.policy.max_sequences - static_cast<int>(running_.size());
  for (const auto& s : waiting_) {
    if (waiting_view_.size() == kMaxWaitingInView) break;
    const AdapterVersion* adapter = s->adapter();
    const AdapterState state = StateOf(*s);
    const bool ready = state == AdapterState::kNone || state == AdapterState::kResident;
    if (ready && lookups-- > 0) {
      FindPrefix(*s);
    } else {
      s->found = {};
      s->found_epoch = 0;
    }
    waiting_view_.push_back(
        {.id = s->id,
         .known_tokens = s->known_tokens(),
         .adapter_state = state,
         .adapter = adapter ? adapter->id : 0,
         .adapter_pages = adapter ? adapter->pages : 0,
         .adapter_idle = adapter != nullptr && pool_.adapters().IsEvictable(adapter->id),
         .cached_tokens = s->found.tokens,
         .cached_pages = s->found.pages,
         .cached_idle_pages = s->found.idle_pages});
  }
}

void Engine::Commit() {
  plan_report_ = {};
  page_copies_.clear();
  for (RequestId id : plan_.preempt) Preempt(id);
  for (RequestId id : plan_.admit) Admit(id);
  for (AdapterVersionId id : plan_.load_adapters) {
    StartLoad(FindWaitingFor(id)->request->adapters[0].version);
  }
  for (const StepPlan::Run& run : plan_.run) TakePages(*sequences_.at(run.id), run.new_pages);
  for (RequestId id : plan_.refuse) Refuse(*sequences_.at(id));
  if (plan_.load_adapters.empty()) StartPreloads();
}

bool Engine::Submit() {
  if (plan_.run.empty()) return false;
  EngineStep step;
  inputs_.clear();
  for (const StepPlan::Run& run : plan_.run) {
    Sequence* s = sequences_.at(run.id);
    inputs_.push_back(InputOf(*s, run.tokens));
    step.runs.push_back({s, run.tokens, inputs_.back().sampler != nullptr});
  }
  step.copy_leases = std::exchange(copy_leases_, {});
  step.exchanged = PageList(&pool_.pages(), PageUse::kKv);
  step.begun = parts_.clock->Now();
  step.report = plan_report_;
  step.report.sequences = static_cast<int>(step.runs.size());
  step.report.adapters = static_cast<int>(pool_.adapters().stats().leased);
  // Beside a step under way it takes no time of its own.
  if (pipeline_.empty()) step.report.plan = step.begun - now_;
  const absl::Status status =
      pipeline_.Submit({.sequences = inputs_, .page_copies = page_copies_}, std::move(step));
  if (!status.ok()) BreakDevice(status);
  return status.ok();
}

SequenceInput Engine::InputOf(const Sequence& s, int tokens) const {
  const auto begin = static_cast<size_t>(s.computed_ahead());
  const auto count = static_cast<size_t>(tokens);
  SequenceInput input;
  if (begin < s.tokens.size()) {
    input.tokens = std::span(s.tokens).subspan(begin, count);
  } else {
    input.tokens = std::span(&kUnderWay, 1);
    input.token_from_previous = s.ahead.place;
  }
  input.first_position = s.computed_ahead();
  input.kv_pages = s.pages.ids();
  input.adapters = s.adapters;
  if (s.request->score) {
    input.score_targets = std::span(s.score_targets).subspan(begin, count);
    input.score_top = s.request->score_top;
  } else if (s.computed_ahead() + tokens == s.known_ahead()) {
    input.sampler = &s.sampler;
    input.sample_index = s.output_tokens() + s.ahead.sampled;
  }
  return input;
}

}  // namespace lorad
