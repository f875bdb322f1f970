#include "tests/unit/scheduler/traces/plan_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "memory/base/check.h"
#include "tests/unit/scheduler/traces/plan_check.h"

namespace lorad {

PlanTrace::PlanTrace(Options options)
    : options_(std::move(options)),
      pool_(options_.pages, 4096,
            {.page_tokens = options_.policy.page_tokens, .prefix_cache = options_.prefix_cache}),
      ledger_(options_.policy, options_.ledger_floor),
      queue_(&options_.policy, &ledger_),
      output_share_(options_.policy),
      served_(options_.weights.size(), 0) {}

// What sequences hold goes before the pool.
PlanTrace::~PlanTrace() { sequences_.clear(); }

KnownPrefix PlanTrace::PrefixOf(RequestId id) const {
  Sequence& s = *sequences_.at(id);
  s.found = pool_.prefixes().Find(ScopeOf(s), s.tokens, s.known() - 1);
  return {.tokens = s.found.tokens,
          .pages = s.found.pages,
          .idle_pages = s.found.idle_pages,
          .sole_pages = s.found.sole_pages};
}

bool PlanTrace::IsIdle(AdapterVersionId adapter) const {
  return pool_.adapters().IsEvictable(adapter);
}

PrefixScope PlanTrace::ScopeOf(const Sequence& s) const {
  return {.tenant = fmt::format("t{}", s.request.tenant), .adapter = s.request.adapter};
}

AdapterState PlanTrace::StateOf(AdapterVersionId adapter) const {
  if (adapter == 0) return AdapterState::kNone;
  if (pool_.adapters().IsResident(adapter)) return AdapterState::kResident;
  return pool_.adapters().IsLoading(adapter) ? AdapterState::kLoading : AdapterState::kStored;
}

void PlanTrace::NoteDepartures() {
  for (AdapterVersionId id : pool_.adapters().TakeEvicted()) {
    ++totals_.evictions;
    queue_.SetAdapterState(id, AdapterState::kStored);
  }
}

void PlanTrace::Wait(Sequence* s) {
  const AdapterVersionId adapter = s->request.adapter;
  const uint32_t pages = adapter == 0 ? 0 : options_.adapter_pages[adapter - 1];
  queue_.Add({.id = s->id,
              .tenant = s->account,
              .priority = s->request.priority,
              .arrival = now_,
              .known_tokens = s->known(),
              .left_tokens = s->left(),
              .adapter = adapter,
              .adapter_pages = pages,
              .adapter_bytes = uint64_t{pages} * 100,
              .preemptions = s->preemptions},
             StateOf(adapter), now_);
}

RequestId PlanTrace::Arrive(Request request) {
  NoteDepartures();
  auto s = std::make_unique<Sequence>();
  s->id = ++last_id_;
  s->tokens = request.prompt;
  s->pages = PageList(&pool_.pages(), PageUse::kKv);
  s->account = ledger_.Arrive(fmt::format("t{}", request.tenant), options_.weights[request.tenant],
                              ClassOf(request.priority, options_.policy));
  s->request = std::move(request);
  Wait(s.get());
  sequences_[last_id_] = std::move(s);
  return last_id_;
}

void PlanTrace::LetGo(Sequence* s, bool keep_prefix) {
  if (keep_prefix && s->computed > 0) {
    pool_.prefixes().Insert(ScopeOf(*s), std::span(s->tokens).first(size_t(s->computed)),
                            /*tail=*/true, &s->pages, &s->lease);
  }
  s->lease.Release();
  s->pages.Clear();
  if (s->request.adapter != 0) pool_.adapters().Release(s->request.adapter, now_);
  s->running = false;
  s->computed = 0;
}

void PlanTrace::End(RequestId id) {
  Sequence& s = *sequences_.at(id);
  if (s.running) {
    LetGo(&s, /*keep_prefix=*/true);
  } else {
    queue_.Remove(id);
  }
  ledger_.Leave(s.account, ClassOf(s.request.priority, options_.policy));
  sequences_.erase(id);
}

void PlanTrace::Cancel(RequestId id) { End(id); }

void PlanTrace::SetPaused(RequestId id, bool paused) {
  Sequence& s = *sequences_.at(id);
  s.paused = paused;
  s.paused_since = paused ? now_ : TimePoint::max();
}

void PlanTrace::FinishLoad(AdapterVersionId adapter, bool failed) {
  LORAD_CHECK(std::erase(loading_, adapter) == 1);
  if (!failed) {
    pool_.adapters().FinishLoad(adapter, 0.01, now_);
    queue_.SetAdapterState(adapter, AdapterState::kResident);
    return;
  }
  pool_.adapters().AbortLoad(adapter);
  queue_.SetAdapterState(adapter, AdapterState::kStored);
  for (RequestId id : queue_.WaitingFor(adapter)) End(id);
}

std::vector<RunningView> PlanTrace::Running() const {
  std::vector<RunningView> running;
  for (const auto& [id, s] : sequences_) {
    if (!s->running) continue;
    const AdapterVersionId adapter = s->request.adapter;
    const uint32_t held = s->pages.size();
    const uint64_t bytes = adapter == 0 ? 0 : uint64_t{options_.adapter_pages[adapter - 1]} * 100;
    running.push_back(
        {.id = id,
         .tenant = s->account,
         .priority = s->request.priority,
         .adapter = adapter,
         .adapter_bytes = bytes,
         .known_tokens = s->known(),
         .computed_tokens = s->computed,
         .left_tokens = s->left(),
         .held_pages = static_cast<int>(held),
         .releasable_pages = static_cast<int>(held - s->lease.pages() + s->lease.sole_pages()),
         .preemptions = s->preemptions,
         .aged = s->aged,
         .paused = s->paused,
         .paused_since = s->paused_since});
  }
  return running;
}

absl::Status PlanTrace::Step() {
  now_ += options_.step;
  NoteDepartures();
  const std::vector<RunningView> running = Running();
  const uint32_t available = pool_.available_pages(), free = pool_.pages().free_pages();
  const PlannerView view{.now = now_,
                         .running = running,
                         .waiting = &queue_,
                         .tenants = &ledger_,
                         .facts = this,
                         .free_pages = free,
                         .evictable_pages = available - free,
                         .adapter_loads_in_flight = static_cast<int>(loading_.size()),
                         .output_share = output_share_.share(),
                         .recent_step_s = Seconds(options_.step),
                         .step_cost = options_.step_cost};
  const bool gave_way = !plan_.give_way.empty();
  PlanStep(view, options_.policy, &plan_);
  totals_.in_vain += gave_way && plan_.admit.empty() && plan_.give_way.empty() ? 1 : 0;
  Note();
  if (absl::Status status = CheckPlan(view, options_.policy, plan_); !status.ok()) return status;
  Carry();
  return CheckBooks();
}

absl::Status PlanTrace::CheckBooks() const {
  std::vector<const PageList*> tables;
  for (const auto& [id, s] : sequences_) tables.push_back(&s->pages);
  absl::Status status = pool_.Validate(tables);
  status.Update(queue_.Validate());
  const UnifiedPool::States states = pool_.states();
  if (states.free + states.kv + states.kv_cached + states.adapter + states.loading !=
      states.total) {
    status.Update(absl::InternalError("I2: pages are in no state, or in two"));
  }
  return status;
}

void PlanTrace::Note() {
  const auto mix = [this](uint64_t what) {
    hash_ = (hash_ ^ what) * 1099511628211ull;
    hash_ ^= hash_ >> 29;
  };
  for (RequestId id : plan_.preempt) mix(id * 8 + 1);
  for (RequestId id : plan_.give_way) mix(id * 8);
  for (RequestId id : plan_.admit) mix(id * 8 + 2);
  for (const StepPlan::Load& load : plan_.load) mix(load.adapter * 8 + 3), mix(load.request);
  for (const StepPlan::Run& run : plan_.run) {
    mix(run.id * 8 + 4), mix(static_cast<uint64_t>(run.tokens)), mix(run.new_pages);
  }
  for (RequestId id : plan_.refuse) mix(id * 8 + 5);
  for (const StepPlan::Overtaken& o : plan_.overtaken) {
    mix(o.id * 8 + 6), mix(static_cast<uint64_t>(o.times));
  }
  for (AdapterVersionId id : plan_.keep) mix(id * 8 + 7);
  mix(plan_.reserved_for), mix(plan_.draining), mix(plan_.spare_pages);
}

void PlanTrace::Carry() {
  for (const StepPlan::Overtaken& o : plan_.overtaken) {
    queue_.Overtake(o.id, o.times, now_);
    totals_.overtakes += o.times;
  }
  totals_.pinned += plan_.pinned;
  totals_.reserved += plan_.reserved_for != 0 ? 1 : 0;
  totals_.drained += plan_.draining != 0 ? 1 : 0;
  for (RequestId id : plan_.preempt) Preempt(id);
  for (RequestId id : plan_.give_way) Preempt(id);
  totals_.preempted += static_cast<int>(plan_.preempt.size());
  totals_.gave_way += static_cast<int>(plan_.give_way.size());
  for (RequestId id : plan_.admit) Admit(id);
  for (const StepPlan::Load& load : plan_.load) Load(load.adapter);
  for (const StepPlan::Run& run : plan_.run) TakeTurn(run);
  SpareKept(false);
  CountOutstanding();
  for (const StepPlan::Run& run : plan_.run) {
    Sequence& s = *sequences_.at(run.id);
    s.computed += run.tokens;
    if (s.computed < s.known()) continue;
    if (s.request.max_output > 0) s.tokens.push_back(static_cast<int32_t>(s.id));
    if (s.made() >= s.request.output) End(run.id);
  }
  copy_leases_.clear();
  for (RequestId id : plan_.refuse) End(id);
  totals_.refused += static_cast<int>(plan_.refuse.size());
  output_share_.AfterStep(static_cast<int>(plan_.preempt.size()));
}

void PlanTrace::SpareKept(bool spared) {
  if (std::exchange(sparing_, spared) == spared) return;
  for (AdapterVersionId id : plan_.keep) pool_.adapters().SetSpared(id, spared);
}

void PlanTrace::MakeRoom(uint32_t pages) {
  if (pool_.pages().free_pages() < pages) SpareKept(true);
  if (pool_.MakeRoom(pages)) return;
  SpareKept(false);
  LORAD_CHECK(pool_.MakeRoom(pages));
}

void PlanTrace::Preempt(RequestId id) {
  Sequence& s = *sequences_.at(id);
  LetGo(&s, /*keep_prefix=*/true);
  ++s.preemptions;
  NoteDepartures();
  Wait(&s);
}

void PlanTrace::Admit(RequestId id) {
  Sequence& s = *sequences_.at(id);
  const Priority its = ClassOf(s.request.priority, options_.policy);
  s.aged = queue_.FirstLevel(its, now_) < static_cast<int>(its);
  queue_.Admit(id, now_);
  if (s.request.adapter != 0) pool_.adapters().Lease(s.request.adapter, now_);
  PrefixCache::Hit hit = pool_.prefixes().Acquire(ScopeOf(s), s.tokens, s.known() - 1, &s.pages);
  s.lease = std::move(hit.lease);
  s.computed = hit.tokens;
  const int cached = std::max(0, std::min(hit.tokens, s.prompt_tokens()) - s.charged);
  s.charged = std::max(s.charged, hit.tokens);
  totals_.cached_tokens += cached;
  ++totals_.admitted;
  Charge(s, {.cached = cached});
  if (hit.copy_tokens > 0) copy_leases_.push_back(std::move(hit.copy_lease));
  s.running = true;
}

void PlanTrace::Load(AdapterVersionId adapter) {
  NoteDepartures();
  const uint32_t pages = options_.adapter_pages[adapter - 1];
  MakeRoom(pages);
  LORAD_CHECK(!pool_.adapters().BeginLoad(adapter, pages, pool_.available_pages(), now_).empty());
  queue_.SetAdapterState(adapter, AdapterState::kLoading);
  loading_.push_back(adapter);
  ++totals_.loads;
}

// It gets its pages and pays for its tokens.
void PlanTrace::TakeTurn(const StepPlan::Run& run) {
  Sequence& s = *sequences_.at(run.id);
  MakeRoom(run.new_pages);
  LORAD_CHECK(s.pages.Grow(run.new_pages));
  const int end = s.computed + run.tokens;
  TenantLedger::Tokens tokens;
  tokens.input = std::max(0, std::min(end, s.prompt_tokens()) - std::max(s.computed, s.charged));
  s.charged = std::max(s.charged, end);
  if (s.request.max_output > 0 && end == s.known()) tokens.output = 1;
  Charge(s, tokens);
}

double PlanTrace::Cost(const Sequence& s, const TenantLedger::Tokens& tokens) const {
  const SchedulerPolicy& p = options_.policy;
  return (p.input_price * static_cast<double>(tokens.input) +
          p.cached_price * static_cast<double>(tokens.cached) +
          p.output_price * static_cast<double>(tokens.output)) /
         options_.weights[s.request.tenant];
}

void PlanTrace::Charge(const Sequence& s, const TenantLedger::Tokens& tokens) {
  served_[s.request.tenant] += Cost(s, tokens);
  const Priority its = ClassOf(s.request.priority, options_.policy);
  ledger_.Charge(s.account, its, tokens);
  queue_.Reprice(s.account, its);
}

void PlanTrace::CountOutstanding() {
  std::vector<double> outstanding(served_.size(), 0);
  for (const auto& [id, s] : sequences_) {
    if (!s->running) continue;
    // What this step computes is paid for, and is its cost all the same.
    outstanding[s->request.tenant] +=
        Cost(*s, {.input = std::max(0, s->prompt_tokens() - s->computed), .output = s->left()});
  }
  for (double o : outstanding) most_outstanding_ = std::max(most_outstanding_, o);
}

}  // namespace lorad
