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

constexpr TokenId kUnderWay = -1;  // stands for a token that is not known yet

// The output of the sequence is on its way and as long as it may be, or as its reader has room for.
bool HasEnoughAhead(const Sequence& s) {
  if (s.ahead.sampled == 0) return false;
  return s.output_tokens() + s.ahead.sampled >= s.request->max_tokens ||
         s.request->stream->full(static_cast<size_t>(s.ahead.sampled));
}

}  // namespace

class Engine::Facts final : public PlannerFacts {
 public:
  explicit Facts(Engine* engine) : engine_(*engine) {}

  KnownPrefix PrefixOf(RequestId id) const override {
    Sequence& s = *engine_.waiting_.at(id);
    engine_.FindPrefix(s);
    return {.tokens = s.found.tokens,
            .pages = s.found.pages,
            .idle_pages = s.found.idle_pages,
            .sole_pages = s.found.sole_pages};
  }
  bool IsIdle(AdapterVersionId adapter) const override {
    return engine_.pool_.adapters().IsEvictable(adapter);
  }

 private:
  Engine& engine_;
};

bool Engine::Step() {
  now_ = parts_.clock->Now();
  DrainInbox();
  FinishTransfers();
  Expire();
  RefuseHopeless();
  Plan();
  Commit();
  const bool submitted = Submit();
  const bool advanced = Advance(submitted && pipeline_.MayBeFollowed() ? 1 : 0);
  Publish();
  return submitted || advanced;
}

void Engine::Expire() {
  CheckReaders();
  for (RequestId id; expiries_.TakeDue(now_, &id);) {
    Sequence& s = *sequences_.at(id);
    if (absl::Status why = WhyEnd(s); !why.ok()) {
      Finish(s, std::move(why), FinishReason::kLength);
    } else {
      Watch(s, now_);
    }
  }
  RemoveFinished();
}

void Engine::CheckReaders() {
  const auto end_if_too_slow = [this](Sequence& s) {
    if (now_ - s.paused_since <= options_.slow_reader_timeout) return;
    Finish(s,
           WithReason(absl::ResourceExhaustedError("the client reads slower than tokens are made"),
                      "SLOW_CONSUMER"),
           FinishReason::kLength);
  };
  for (const auto& s : running_) {
    if (s->finished) continue;  // it was cancelled just now
    if (!s->request->stream->full()) {
      s->paused_since = TimePoint::max();
    } else if (s->paused_since == TimePoint::max()) {
      s->paused_since = now_;
    } else {
      end_if_too_slow(*s);
    }
  }
  // Who goes on costs a place and a look into the cache, so its reader must have caught up a good
  // way.
  std::vector<std::unique_ptr<Sequence>> still_parked;
  for (auto& s : std::exchange(parked_, {})) {
    if (s->request->stream->half_empty()) {
      s->paused_since = TimePoint::max();
      Return(std::move(s));
    } else {
      still_parked.push_back(std::move(s));
    }
  }
  parked_ = std::move(still_parked);
  for (size_t i = parked_.size(); i > 0; --i) end_if_too_slow(*parked_[i - 1]);
  RemoveFinished();
}

// It is looked at again when its time may be over. Who has its adapter by then may lose it while it
// waits on: its time counts `from` then.
void Engine::Watch(Sequence& s, TimePoint from) {
  s.due = s.request->deadline;
  if (!s.admitted_before && s.adapter() != nullptr) {
    s.due = std::min(s.due, from + options_.adapter_wait_timeout);
  }
  expiries_.Add(s.id, s.due);
}

// Why time is over for a sequence; OK: it is not.
absl::Status Engine::WhyEnd(const Sequence& s) const {
  if (s.request->deadline <= now_) {
    return WithReason(absl::DeadlineExceededError("the deadline passed"), "DEADLINE");
  }
  const bool waits = !s.admitted_before && s.adapter() != nullptr &&
                     now_ - s.request->arrival >= options_.adapter_wait_timeout &&
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
  if (pipeline_.empty() ||
      (plan_.preempt.empty() && plan_.give_way.empty() && plan_.refuse.empty())) {
    return;
  }
  Advance(0);
  MakePlan();
}

void Engine::MakePlan() {
  running_view_.clear();
  for (const auto& s : running_) {
    const AdapterVersion* adapter = s->adapter();
    running_view_.push_back({.id = s->id,
                             .tenant = s->tenant,
                             .priority = s->priority,
                             .adapter = adapter != nullptr ? adapter->id : 0,
                             .adapter_bytes = adapter != nullptr ? adapter->image_bytes : 0,
                             .known_tokens = s->known_ahead(),
                             .computed_tokens = s->computed_ahead(),
                             .left_tokens = s->left_tokens(),
                             .held_pages = static_cast<int>(s->pages.size()),
                             .preemptions = s->preemptions,
                             .aged = s->aged,
                             .paused = s->paused_since != TimePoint::max() || HasEnoughAhead(*s),
                             .paused_since = s->paused_since});
  }
  const uint32_t available = pool_.available_pages();
  if (!queue_.empty() || MayLackPages(available)) FindReleasablePages();
  const uint32_t free = pool_.pages().free_pages();
  const Facts facts(this);
  const PlannerView view{.now = now_,
                         .running = running_view_,
                         .waiting = &queue_,
                         .tenants = &ledger_,
                         .facts = &facts,
                         .free_pages = free,
                         .evictable_pages = available - free,
                         .adapter_loads_in_flight = static_cast<int>(load_started_.size()),
                         .output_share = output_share_.share(),
                         .recent_step_s = rates_.recent_step(),
                         .step_cost = rates_.Fitted()};
  PlanStep(view, options_.policy, &plan_);
}

void Engine::Wait(std::unique_ptr<Sequence> s) {
  const AdapterVersion* adapter = s->adapter();
  queue_.Add({.id = s->id,
              .tenant = s->tenant,
              .priority = s->priority,
              .arrival = s->request->arrival,
              .known_tokens = s->known_tokens(),
              .left_tokens = s->left_tokens(),
              .adapter = adapter != nullptr ? adapter->id : 0,
              .adapter_pages = adapter != nullptr ? adapter->pages : 0,
              .adapter_bytes = adapter != nullptr ? adapter->image_bytes : 0,
              .preemptions = s->preemptions},
             StateOf(*s), now_);
  const RequestId id = s->id;
  waiting_[id] = std::move(s);
}

void Engine::Commit() {
  page_copies_.clear();
  for (const StepPlan::Overtaken& o : plan_.overtaken) {
    queue_.Overtake(o.id, o.times, now_);
    plan_report_.overtakes += o.times;
  }
  for (RequestId id : plan_.preempt) Preempt(id, &plan_report_.preemptions);
  for (RequestId id : plan_.give_way) Preempt(id, &plan_report_.gave_way);
  for (RequestId id : plan_.admit) Admit(id);
  for (const StepPlan::Load& load : plan_.load) {
    StartLoad(waiting_.at(load.request)->request->adapters[0].version);
  }
  for (const StepPlan::Run& run : plan_.run) {
    Sequence& s = *sequences_.at(run.id);
    TakePages(s, run.new_pages);
    Charge(s, run.tokens);
  }
  SettleCharges();
  for (RequestId id : plan_.refuse) Refuse(*sequences_.at(id));
  StartPreloads();
  SpareKept(false);
  output_share_.AfterStep(static_cast<int>(plan_.preempt.size()));
}

// A tenant pays for a step when it is handed over, so that the next one is planned with it. What is
// computed again after a preemption was paid for.
void Engine::Charge(Sequence& s, int tokens) {
  const int begin = s.computed_ahead(), end = begin + tokens;
  TenantLedger::Tokens& charge = charges_[{s.tenant, s.priority}];
  charge.input += std::max(0, std::min(end, s.prompt_tokens()) - std::max(begin, s.charged));
  s.charged = std::max(s.charged, end);
  if (!s.request->score && end == s.known_ahead()) ++charge.output;
}

void Engine::SettleCharges() {
  for (const auto& [account, tokens] : charges_) {
    ledger_.Charge(account.first, account.second, tokens);
    queue_.Reprice(account.first, account.second);
  }
  charges_.clear();
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
  step.report = std::exchange(plan_report_, {});
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
