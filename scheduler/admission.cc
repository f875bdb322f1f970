#include "scheduler/admission.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "scheduler/decode.h"
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

class PromptPlanner {
 public:
  explicit PromptPlanner(StepDraft* draft)
      : d_(*draft), urgent_{.tokens = d_.tokens, .sequences = d_.sequences} {}

  void Plan();

 private:
  std::vector<const RunningView*> RunningPrompts() const;
  void ShareWithLowerClasses(std::span<const RunningView* const> prompts);
  // Tokens that a candidate of this level may have.
  int TokensFor(int level, int wanted) const;
  void GiveTokens(const PolicyOrder::Candidate& c, TenantIndex tenant, Priority priority,
                  int tokens, int cached);
  void Continue(const PolicyOrder::Candidate& c);
  void Admit(const PolicyOrder::Candidate& c);
  void Load(const WaitingRequest& w);
  // It does not fit, and holds up those behind it, unless it can never fit.
  void Block(const WaitingRequest& w);

  StepDraft& d_;
  UrgentShare urgent_;
  PolicyOrder* order_ = nullptr;
  std::vector<AdapterVersionId> pinned_;  // idle adapters that stopped being evictable in this plan
};

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
  urgent_.sequences = part(d_.policy.max_sequences);
  for (const RunningView& r : d_.view.running) {
    urgent_.sequences -= ClassOf(r.priority, d_.policy) == Priority::kInteractive ? 1 : 0;
  }
}

int PromptPlanner::TokensFor(int level, int wanted) const {
  const int budget = level == 0 ? std::min(d_.tokens, urgent_.tokens) : d_.tokens;
  return std::min({wanted, d_.policy.max_chunk_tokens, budget});
}

void PromptPlanner::GiveTokens(const PolicyOrder::Candidate& c, TenantIndex tenant,
                               Priority priority, int tokens, int cached) {
  d_.tokens -= tokens;
  if (c.level == 0) urgent_.tokens -= tokens;
  order_->Charge(tenant, priority, {.input = tokens, .cached = cached});
}

void PromptPlanner::Continue(const PolicyOrder::Candidate& c) {
  const RunningView& r = *c.running;
  const int tokens = TokensFor(c.level, r.known_tokens - r.computed_tokens);
  if (tokens <= 0) return;
  // Pages of a whole prompt are taken at admission, so a chunk rarely needs any.
  const uint32_t missing = MissingPages(r, tokens, d_.policy.page_tokens);
  if (missing > d_.pages) return;
  d_.pages -= missing;
  d_.plan.run.push_back({r.id, tokens, missing});
  GiveTokens(c, r.tenant, r.priority, tokens, 0);
}

void PromptPlanner::Block(const WaitingRequest& w) {
  const bool hopeless = d_.view.running.empty() && d_.view.adapter_loads_in_flight == 0 &&
                        d_.plan.admit.empty() && d_.plan.load.empty();
  if (hopeless) {
    d_.plan.refuse.push_back(w.id);
  } else {
    order_->StopReady();
    order_->StopCold();
  }
}

void PromptPlanner::Load(const WaitingRequest& w) {
  if (d_.loads == 0) return order_->StopCold();
  const StepPlan::Load load{w.adapter, w.id};
  for (const StepPlan::Load& other : d_.plan.load) {
    if (other.adapter == load.adapter) return;
  }
  if (w.adapter_pages > d_.pages) return Block(w);
  d_.pages -= w.adapter_pages;
  d_.loads -= 1;
  d_.plan.load.push_back(load);
}

void PromptPlanner::Admit(const PolicyOrder::Candidate& c) {
  const WaitingRequest& w = *c.waiting;
  if (d_.sequences == 0) return order_->StopReady();
  // The reserve protects running sequences; with none running there is nobody to protect.
  const uint32_t reserve = d_.view.running.empty() ? 0 : d_.policy.reserve_pages;
  const KnownPrefix prefix = d_.view.facts->PrefixOf(w.id);
  const uint32_t pages =
      PagesFor(static_cast<size_t>(w.known_tokens), d_.policy.page_tokens) - prefix.pages;
  const bool pins =
      w.adapter != 0 && d_.view.facts->IsIdle(w.adapter) && !Contains(pinned_, w.adapter);
  const uint32_t taken = pages + prefix.idle_pages + (pins ? w.adapter_pages : 0);
  if (taken + reserve > d_.pages) return Block(w);
  d_.pages -= taken;
  d_.sequences -= 1;
  if (c.level == 0) urgent_.sequences -= 1;
  if (pins) pinned_.push_back(w.adapter);
  const int tokens = TokensFor(c.level, w.known_tokens - prefix.tokens);
  d_.plan.admit.push_back(w.id);
  d_.plan.run.push_back({w.id, tokens, pages});
  GiveTokens(c, w.tenant, w.priority, tokens, prefix.tokens);
}

void PromptPlanner::Plan() {
  const std::vector<const RunningView*> prompts = RunningPrompts();
  ShareWithLowerClasses(prompts);
  PolicyOrder order(d_.view, d_.policy, prompts, /*offer_waiting=*/d_.plan.preempt.empty());
  order_ = &order;
  for (PolicyOrder::Candidate c; d_.tokens > 0;) {
    if (urgent_.sequences <= 0) order.PutUrgentWaitingLast();
    if (urgent_.tokens <= 0) order.PutUrgentLast();
    if (!order.Next(&c)) return;
    if (c.running != nullptr) {
      Continue(c);
    } else if (!c.cold()) {
      Admit(c);
    } else if (c.adapter_state == AdapterState::kStored) {
      Load(*c.waiting);
    }
  }
}

}  // namespace

void PlanPrompts(StepDraft* draft) { PromptPlanner(draft).Plan(); }

}  // namespace lorad
