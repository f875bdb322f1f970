#include "scheduler/admission.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "scheduler/adapters_in_step.h"
#include "scheduler/decode.h"
#include "scheduler/give_way.h"
#include "scheduler/memory_forecast.h"
#include "scheduler/places_in_step.h"
#include "scheduler/policy_order.h"

namespace lorad {
namespace {

template <typename T>
bool Contains(const std::vector<T>& all, const T& one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

// What the most urgent level may take while a less urgent one has something to compute.
struct UrgentShare {
  int tokens;
  int sequences;
};

// What a waiting request would take.
struct Need {
  KnownPrefix prefix;
  uint32_t new_pages = 0;         // of its prompt
  uint32_t now = 0;               // pages that cannot be had by others if it is admitted
  MemoryForecast::Demand demand;  // later
  int64_t in_all = 0;             // pages, to its end
  int64_t steps = 0;              // to its end, at best
};

class PromptPlanner {
 public:
  explicit PromptPlanner(StepDraft* draft);

  void Plan();

 private:
  std::vector<const RunningView*> RunningPrompts() const;
  template <typename F>
  void ForEachDemand(const F& f) const;
  void CountRunning();
  void ShareWithLowerClasses(std::span<const RunningView* const> prompts);
  // Tokens that a candidate of this level may have.
  int TokensFor(int level, TenantIndex tenant, int wanted) const;
  void GiveTokens(const PolicyOrder::Candidate& c, TenantIndex tenant, Priority priority,
                  int tokens, int cached);
  void Continue(const PolicyOrder::Candidate& c);

  // Less urgent ones make room for it; false: it must wait.
  bool MakeWayFor(const PolicyOrder::Candidate& c);
  bool HasRoomWithout(std::span<const RunningView* const> gone, const WaitingRequest& w,
                      const Need& need) const;
  void Consider(const PolicyOrder::Candidate& c);
  Need NeedOf(const WaitingRequest& w) const;
  bool Fits(const Need& need) const;
  void Admit(const PolicyOrder::Candidate& c, const Need& need);

  void ConsiderLoad(const PolicyOrder::Candidate& c);
  // Pages that may go to something else than those who run and those who are let in.
  int64_t Spare() const;
  // They cannot be evicted for the sake of a load any more.
  void Keep(const WaitingRequest& w);

  bool IsPinned(const WaitingRequest& w) const;
  // It has to wait for lack of pages; it would take so many in all.
  void Block(const WaitingRequest& w, int64_t pages);
  void PassOver(const WaitingRequest& w);

  StepDraft& d_;
  const int64_t reserve_;  // pages
  const size_t decoding_;  // of the plan's runs, the first
  UrgentShare urgent_;
  PolicyOrder* order_ = nullptr;
  MemoryForecast forecast_;
  AdaptersInStep adapters_;
  PlacesInStep places_;
  int64_t not_returned_ = 0;  // pages that are counted to come back and will not
  int64_t kept_pages_ = 0;
  int seen_ready_ = 0, seen_cold_ = 0;  // that were not admitted
  bool asked_to_give_way_ = false;
  std::optional<MemoryForecast::Opening> reserved_;
};

PromptPlanner::PromptPlanner(StepDraft* draft)
    : d_(*draft),
      // It protects running sequences; with none running there is nobody to protect.
      reserve_(d_.view.running.empty() ? 0 : d_.policy.reserve_pages),
      decoding_(d_.plan.run.size()),
      urgent_{.tokens = d_.tokens, .sequences = d_.policy.max_sequences},
      forecast_(d_.policy.page_tokens),
      adapters_(d_.policy),
      places_(d_.view.tenants, &d_.policy, &d_.budget) {}

std::vector<const RunningView*> PromptPlanner::RunningPrompts() const {
  std::vector<const RunningView*> prompts;
  for (const RunningView& r : d_.view.running) {
    if (r.paused || IsDecode(r) || Contains(d_.plan.preempt, r.id)) continue;
    prompts.push_back(&r);
  }
  return prompts;
}

void PromptPlanner::ShareWithLowerClasses(std::span<const RunningView* const> prompts) {
  bool lower_waits = false;
  for (const RunningView* r : prompts) {
    lower_waits |= ClassOf(r->priority, d_.policy) != Priority::kInteractive;
  }
  for (const Priority p : {Priority::kStandard, Priority::kBatch}) {
    lower_waits |= !d_.view.waiting->rows(p, /*ready=*/true).empty();
  }
  if (!lower_waits) return;
  const double share = 1 - d_.policy.lower_class_share;
  const auto part = [share](int of) {
    return std::max(1, static_cast<int>(std::floor(share * of + 1e-9)));
  };
  urgent_.tokens = std::min(d_.tokens, part(d_.tokens));
  urgent_.sequences = part(d_.budget.sequences) - places_.of(Priority::kInteractive);
}

int PromptPlanner::TokensFor(int level, TenantIndex tenant, int wanted) const {
  int budget = d_.tokens;
  if (places_.HasItsShare(tenant)) budget -= d_.burst_tokens;
  if (level == 0) budget = std::min(budget, urgent_.tokens);
  return std::min({wanted, d_.policy.max_chunk_tokens, budget});
}

void PromptPlanner::GiveTokens(const PolicyOrder::Candidate& c, TenantIndex tenant,
                               Priority priority, int tokens, int cached) {
  d_.TakeTokens(tokens);
  if (c.level == 0) urgent_.tokens -= tokens;
  order_->Charge(tenant, priority, {.input = tokens, .cached = cached});
}

void PromptPlanner::Continue(const PolicyOrder::Candidate& c) {
  const RunningView& r = *c.running;
  const int tokens = TokensFor(c.level, r.tenant, r.known_tokens - r.computed_tokens);
  if (tokens <= 0 || Contains(d_.plan.give_way, r.id)) return;
  // Pages of a whole prompt are taken at admission, so a chunk rarely needs any.
  const uint32_t missing = MissingPages(r, tokens, d_.policy.page_tokens);
  if (missing > d_.pages) return;
  d_.pages -= missing;
  d_.plan.run.push_back({r.id, tokens, missing});
  GiveTokens(c, r.tenant, r.priority, tokens, 0);
}

// Calls f(running sequence, its demand after this step) for each that is not preempted.
template <typename F>
void PromptPlanner::ForEachDemand(const F& f) const {
  size_t next = 0;  // of those that decode, which are in the order of the view
  for (const RunningView& r : d_.view.running) {
    if (Contains(d_.plan.preempt, r.id)) continue;
    MemoryForecast::Demand demand{.tokens = r.known_tokens,
                                  .left = d_.Expected(r.left_tokens, r.preemptions),
                                  .held = static_cast<uint32_t>(r.held_pages),
                                  .returns = static_cast<uint32_t>(r.releasable_pages),
                                  .stalled = r.paused};
    if (next < decoding_ && d_.plan.run[next].id == r.id) {
      demand.tokens += 1;
      demand.left = std::max(0, demand.left - 1);
      demand.held += d_.plan.run[next].new_pages;
      demand.returns += d_.plan.run[next].new_pages;
      ++next;
    }
    f(r, demand);
  }
}

void PromptPlanner::CountRunning() {
  ForEachDemand([this](const RunningView& r, const MemoryForecast::Demand& demand) {
    adapters_.Use(r.adapter, r.adapter_bytes, r.left_tokens);
    places_.Take(r.tenant, r.priority);
    forecast_.Add(demand);
  });
}

bool PromptPlanner::IsPinned(const WaitingRequest& w) const {
  return w.overtakes >= d_.policy.max_overtakes ||
         (w.overtakes > 0 && d_.view.now - w.overtaken_since >= d_.policy.max_overtaken_time);
}

void PromptPlanner::PassOver(const WaitingRequest& w) {
  d_.plan.overtaken.push_back({w.id, 0});
  if (IsPinned(w)) ++d_.plan.pinned;
  if (d_.policy.backfill && w.overtakes >= d_.policy.max_backfills && reserved_.has_value() &&
      d_.plan.reserved_for == w.id) {
    order_->StopReady();
    order_->StopCold();
  }
}

void PromptPlanner::Block(const WaitingRequest& w, int64_t pages) {
  const bool hopeless = d_.view.running.empty() && d_.view.adapter_loads_in_flight == 0 &&
                        d_.plan.admit.empty() && d_.plan.load.empty();
  if (hopeless) {
    d_.plan.refuse.push_back(w.id);
    return;
  }
  if (IsPinned(w)) adapters_.MakeWayFor(w);
  if (!d_.policy.backfill) {
    order_->StopReady();
    order_->StopCold();
  } else if (!reserved_.has_value()) {
    d_.plan.reserved_for = w.id;
    reserved_ = forecast_.WhenFree(pages, d_.pages - not_returned_ - reserve_);
  }
  PassOver(w);
}

Need PromptPlanner::NeedOf(const WaitingRequest& w) const {
  Need need{.prefix = d_.view.facts->PrefixOf(w.id)};
  const uint32_t pages = PagesFor(static_cast<size_t>(w.known_tokens), d_.policy.page_tokens);
  need.new_pages = pages - need.prefix.pages;
  const bool wakes =
      w.adapter != 0 && !adapters_.in_use(w.adapter) && d_.view.facts->IsIdle(w.adapter);
  need.now = need.new_pages + need.prefix.idle_pages + (wakes ? w.adapter_pages : 0);
  need.demand = {.tokens = w.known_tokens,
                 .left = d_.Expected(w.left_tokens, w.preemptions),
                 .held = pages,
                 .returns = need.new_pages + need.prefix.idle_pages};
  need.in_all = need.now + forecast_.Lacking(need.demand);
  const int prompt = w.known_tokens - need.prefix.tokens;
  need.steps = (prompt + d_.policy.max_chunk_tokens - 1) / d_.policy.max_chunk_tokens +
               std::max(0, need.demand.left - 1);
  return need;
}

bool PromptPlanner::Fits(const Need& need) const {
  const int64_t left = int64_t{d_.pages} - need.now - reserve_;
  if (left < 0) return false;
  if (d_.policy.admission != AdmissionMode::kPromptOnly &&
      !forecast_.Fits(need.demand, left - not_returned_ - need.prefix.sole_pages)) {
    return false;
  }
  return !reserved_.has_value() || need.steps <= reserved_->steps ||
         need.in_all <= reserved_->spare;
}

void PromptPlanner::Consider(const PolicyOrder::Candidate& c) {
  const WaitingRequest& w = *c.waiting;
  const int places = places_.For(w.tenant, w.priority);
  const bool has_tokens = TokensFor(c.level, w.tenant, 1) > 0;
  // What is left may be for others.
  if ((places <= 0 && places_.left() > 0) || (!has_tokens && d_.tokens > 0)) {
    return order_->StopReadyOf(w.tenant, w.priority);
  }
  if (places <= 0 || !has_tokens) {
    if (has_tokens && adapters_.Admits(w) && MakeWayFor(c)) return;
    if (++seen_ready_ > d_.policy.kept_requests) return order_->StopReady();
    return Keep(w);
  }
  if (!adapters_.Admits(w)) {
    if (IsPinned(w)) adapters_.MakeWayFor(w);
    PassOver(w);
  } else {
    const Need need = NeedOf(w);
    if (Fits(need)) return Admit(c, need);
    if (MakeWayFor(c)) return;
    Block(w, need.in_all);
  }
  Keep(w);
  if (++seen_ready_ >= d_.policy.max_passed_over) order_->StopReady();
}

void PromptPlanner::Admit(const PolicyOrder::Candidate& c, const Need& need) {
  const WaitingRequest& w = *c.waiting;
  // As its tenant stands before: with this place it may have its share.
  const int tokens = TokensFor(c.level, w.tenant, w.known_tokens - need.prefix.tokens);
  d_.pages -= need.now;
  places_.Take(w.tenant, w.priority);
  if (c.level == 0) urgent_.sequences -= 1;
  not_returned_ += need.prefix.sole_pages;
  forecast_.Add(need.demand);
  adapters_.Use(w.adapter, w.adapter_bytes, w.left_tokens);
  if (reserved_.has_value() && need.steps > reserved_->steps) reserved_->spare -= need.in_all;
  d_.plan.admit.push_back(w.id);
  d_.plan.run.push_back({w.id, tokens, need.new_pages});
  GiveTokens(c, w.tenant, w.priority, tokens, need.prefix.tokens);
  for (StepPlan::Overtaken& o : d_.plan.overtaken) ++o.times;
}

bool PromptPlanner::HasRoomWithout(std::span<const RunningView* const> gone,
                                   const WaitingRequest& w, const Need& need) const {
  PlacesInStep places = places_;
  for (const RunningView* r : gone) places.Leave(r->tenant, r->priority);
  if (places.For(w.tenant, w.priority) <= 0) return false;
  MemoryForecast forecast(d_.policy.page_tokens);
  int64_t pages = int64_t{d_.pages} - need.now - reserve_;
  ForEachDemand([&](const RunningView& r, const MemoryForecast::Demand& demand) {
    if (std::find(gone.begin(), gone.end(), &r) == gone.end()) {
      forecast.Add(demand);
    } else {
      pages += demand.returns;
    }
  });
  if (d_.policy.admission == AdmissionMode::kPromptOnly) return pages >= 0;
  return pages >= 0 && forecast.Fits(need.demand, pages - not_returned_ - need.prefix.sole_pages);
}

bool PromptPlanner::MakeWayFor(const PolicyOrder::Candidate& c) {
  const WaitingRequest& w = *c.waiting;
  // One attempt a step, for who is first in order; and who is admitted counts on what is cached.
  if (!d_.policy.give_way || c.level >= kPriorities || reserved_.has_value() ||
      !d_.plan.admit.empty() || asked_to_give_way_) {
    return false;
  }
  // Beyond its share a tenant takes places only from its own.
  const bool only_own = d_.policy.fair_tenants && places_.HasItsShare(w.tenant);
  std::vector<const RunningView*> candidates = WhoMayGiveWay(d_, w, only_own);
  if (candidates.empty()) return false;
  asked_to_give_way_ = true;
  const Need need = NeedOf(w);
  const std::vector<const RunningView*> gone = FewestWhoGiveWay(
      std::move(candidates),
      [&](std::span<const RunningView* const> some) { return HasRoomWithout(some, w, need); });
  for (const RunningView* r : gone) {
    d_.plan.give_way.push_back(r->id);
    std::erase_if(d_.plan.run, [r](const StepPlan::Run& run) { return run.id == r->id; });
  }
  if (gone.empty()) return false;
  order_->StopReady();
  order_->StopCold();
  return true;
}

void PromptPlanner::Keep(const WaitingRequest& w) {
  if (d_.policy.kept_requests == 0) return;
  if (w.adapter == 0 || adapters_.in_use(w.adapter) || !d_.view.facts->IsIdle(w.adapter) ||
      Contains(d_.plan.keep, w.adapter)) {
    return;
  }
  d_.plan.keep.push_back(w.adapter);
  kept_pages_ += w.adapter_pages;
}

int64_t PromptPlanner::Spare() const {
  int64_t spare = int64_t{d_.pages};
  if (d_.policy.admission != AdmissionMode::kPromptOnly) {
    spare -= not_returned_ + reserve_ + forecast_.Needed();
  }
  return reserved_.has_value() ? std::min(spare, reserved_->spare) : spare;
}

void PromptPlanner::ConsiderLoad(const PolicyOrder::Candidate& c) {
  const WaitingRequest& w = *c.waiting;
  if (++seen_cold_ > d_.policy.max_passed_over) return order_->StopCold();
  const auto same = [&w](const StepPlan::Load& load) { return load.adapter == w.adapter; };
  const bool coming = c.adapter_state == AdapterState::kLoading ||
                      std::any_of(d_.plan.load.begin(), d_.plan.load.end(), same);
  if (coming || d_.loads == 0) return PassOver(w);
  // What the next requests use is not evicted for those after them, unless these have waited long.
  const bool pinned = IsPinned(w);
  const bool alone = d_.view.running.empty() && d_.plan.admit.empty();
  const int64_t kept = pinned || alone ? 0 : kept_pages_;
  if (w.adapter_pages > Spare() - kept) {
    if (!pinned && !alone && d_.policy.backfill) return PassOver(w);
    return Block(w, w.adapter_pages + NeedOf(w).in_all);
  }
  d_.pages -= w.adapter_pages;
  d_.loads -= 1;
  if (reserved_.has_value()) reserved_->spare -= w.adapter_pages;
  d_.plan.load.push_back({w.adapter, w.id});
  PassOver(w);
}

void PromptPlanner::Plan() {
  CountRunning();
  const std::vector<const RunningView*> prompts = RunningPrompts();
  ShareWithLowerClasses(prompts);
  PolicyOrder order(d_.view, d_.policy, prompts, /*offer_waiting=*/d_.plan.preempt.empty());
  order_ = &order;
  for (PolicyOrder::Candidate c;;) {
    if (urgent_.sequences <= 0) order.PutUrgentWaitingLast();
    if (urgent_.tokens <= 0) order.PutUrgentLast();
    if (!order.Next(&c)) break;
    if (c.running != nullptr) {
      Continue(c);
    } else if (c.cold()) {
      ConsiderLoad(c);
    } else {
      Consider(c);
    }
  }
  std::erase_if(d_.plan.overtaken, [](const StepPlan::Overtaken& o) { return o.times == 0; });
  d_.plan.draining = adapters_.draining();
  d_.plan.spare_pages = static_cast<uint32_t>(std::max<int64_t>(0, Spare() - kept_pages_));
}

}  // namespace

void PlanPrompts(StepDraft* draft) { PromptPlanner(draft).Plan(); }

}  // namespace lorad
