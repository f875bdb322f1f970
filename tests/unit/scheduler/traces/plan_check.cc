#include "tests/unit/scheduler/traces/plan_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <vector>

#include "scheduler/decode.h"

namespace lorad {
namespace {

struct Waiter {
  const WaitingRequest* request;
  AdapterState state;
  bool heads_lane;
  bool ready() const { return state == AdapterState::kNone || state == AdapterState::kResident; }
};

template <typename... Args>
absl::Status Broken(fmt::format_string<Args...> format, Args&&... args) {
  return absl::InternalError(fmt::format(format, std::forward<Args>(args)...));
}

int64_t LackingToTheEnd(int known, int left, int64_t held, int page_tokens) {
  const auto last = static_cast<size_t>(std::max(known, known + left - 1));
  return std::max<int64_t>(0, int64_t{PagesFor(last, page_tokens)} - held);
}

class PlanCheck {
 public:
  PlanCheck(const PlannerView& view, const SchedulerPolicy& policy, const StepPlan& plan)
      : view_(view), policy_(policy), plan_(plan) {
    for (const RunningView& r : view.running) running_[r.id] = &r;
    for (int p = 0; p < kPriorities; ++p) {
      for (const bool ready : {true, false}) AddRows(view.waiting->rows(Priority(p), ready));
    }
    for (const StepPlan::Run& run : plan.run) turns_[run.id] = &run;
    for (const auto* some : {&plan.preempt, &plan.give_way}) {
      preempted_.insert(some->begin(), some->end());
    }
    admitted_.insert(plan.admit.begin(), plan.admit.end());
    refused_.insert(plan.refuse.begin(), plan.refuse.end());
  }

  absl::Status All() {
    absl::Status status = Turns();
    status.Update(Budgets());
    if (!status.ok()) return status;  // the others count on it
    status.Update(Progress());
    status.Update(Victims());
    status.Update(GivesWay());
    status.Update(Overtaking());
    // An objective leaves tokens and places idle.
    const StepBudget whole{.prompt_tokens = policy_.max_step_tokens,
                           .sequences = policy_.max_sequences};
    if (plan_.budget != whole) return status;
    status.Update(RunningAreServed());
    status.Update(Pinned());
    for (const auto& [id, w] : waiting_) status.Update(IsNotLeftBehind(w));
    return status;
  }

 private:
  void AddRows(const WaitingQueue::Rows& rows) {
    for (const auto& [place, row] : rows) {
      for (const auto& [head, lane] : row->lanes) {
        for (const auto& [id, w] : lane->requests) waiting_[id] = {&w, lane->state, id == head};
      }
    }
  }
  // Requests are served by arrival and by nothing else, so what is before somebody is known.
  bool ordered() const { return !policy_.fair_tenants && !policy_.priorities; }
  bool stays(RequestId waiting) const {
    return !admitted_.contains(waiting) && !refused_.contains(waiting);
  }
  bool IsPinned(const WaitingRequest& w) const {
    return w.overtakes >= policy_.max_overtakes ||
           (w.overtakes > 0 && view_.now - w.overtaken_since >= policy_.max_overtaken_time);
  }

  absl::Status Turns() {
    if (turns_.size() != plan_.run.size()) return Broken("I1: somebody runs twice");
    if (preempted_.size() != plan_.preempt.size() + plan_.give_way.size() ||
        admitted_.size() != plan_.admit.size()) {
      return Broken("I1: somebody is preempted or admitted twice");
    }
    for (RequestId id : plan_.admit) {
      const auto w = waiting_.find(id);
      if (w == waiting_.end() || !w->second.ready()) return Broken("I1: {} is admitted", id);
      if (!turns_.contains(id)) return Broken("I1: {} is admitted and does not run", id);
    }
    for (const StepPlan::Run& run : plan_.run) {
      const auto found = running_.find(run.id);
      const bool runs = found != running_.end();
      if (!runs && !admitted_.contains(run.id)) return Broken("I1: {} does not run", run.id);
      if (runs && (found->second->paused || preempted_.contains(run.id))) {
        return Broken("I1: {} is preempted or paused, and runs", run.id);
      }
      const KnownPrefix prefix = runs ? KnownPrefix{} : view_.facts->PrefixOf(run.id);
      const int known =
          runs ? found->second->known_tokens : waiting_.at(run.id).request->known_tokens;
      const int computed = runs ? found->second->computed_tokens : prefix.tokens;
      if (run.tokens < 1 || run.tokens > std::min(known - computed, policy_.max_chunk_tokens)) {
        return Broken("I1: {} gets {} of {} tokens", run.id, run.tokens, known - computed);
      }
      const uint32_t held = runs ? static_cast<uint32_t>(found->second->held_pages) : prefix.pages;
      // A whole prompt's at once.
      const int covered = runs ? computed + run.tokens : known;
      const uint32_t needed = PagesFor(static_cast<size_t>(covered), policy_.page_tokens);
      if (held + run.new_pages != std::max(held, needed)) {
        return Broken("I1: {} gets {} pages and has {} of {}", run.id, run.new_pages, held, needed);
      }
    }
    return absl::OkStatus();
  }

  absl::Status Budgets() {
    int64_t tokens = 0, pages = int64_t{view_.free_pages} + view_.evictable_pages;
    for (const auto& [id, run] : turns_) {
      tokens += run->tokens;
      pages -= run->new_pages;
    }
    std::map<AdapterVersionId, uint64_t> adapters;
    std::set<AdapterVersionId> woken;
    for (const auto& [id, r] : running_) {
      if (preempted_.contains(id)) {
        pages += r->releasable_pages;
      } else if (r->adapter != 0) {
        adapters[r->adapter] = r->adapter_bytes;
      }
    }
    used_at_first_ = adapters;
    for (RequestId id : plan_.admit) {
      const WaitingRequest& w = *waiting_.at(id).request;
      const KnownPrefix prefix = view_.facts->PrefixOf(id);
      pages -= prefix.idle_pages;
      sole_pages_ += prefix.sole_pages;
      if (w.adapter == 0) continue;
      if (adapters.emplace(w.adapter, w.adapter_bytes).second && view_.facts->IsIdle(w.adapter)) {
        pages -= w.adapter_pages;
      }
    }
    std::set<AdapterVersionId> loads;
    for (const StepPlan::Load& load : plan_.load) {
      const auto w = waiting_.find(load.request);
      if (w == waiting_.end() || w->second.state != AdapterState::kStored ||
          w->second.request->adapter != load.adapter || !loads.insert(load.adapter).second) {
        return Broken("I1: adapter {} is loaded for nobody, or twice", load.adapter);
      }
      pages -= w->second.request->adapter_pages;
    }
    tokens_left_ = policy_.max_step_tokens - tokens;
    places_left_ = policy_.max_sequences -
                   static_cast<int64_t>(running_.size() - preempted_.size() + admitted_.size());
    pages_left_ = pages;
    loads_left_ = policy_.max_adapter_loads - view_.adapter_loads_in_flight -
                  static_cast<int>(plan_.load.size());
    for (const auto& [adapter, bytes] : adapters) adapter_bytes_ += bytes;
    adapters_ = adapters.size();
    if (tokens_left_ < 0 || places_left_ < 0 || pages_left_ < 0 || loads_left_ < 0) {
      return Broken("I1: {} tokens, {} places, {} pages and {} loads are left", tokens_left_,
                    places_left_, pages_left_, loads_left_);
    }
    if (policy_.max_adapter_bytes > 0 && adapters_ > 1 &&
        adapter_bytes_ > policy_.max_adapter_bytes) {
      return Broken("I1: {} adapters of {} bytes", adapters_, adapter_bytes_);
    }
    return absl::OkStatus();
  }

  absl::Status Progress() const {
    const bool paused = std::any_of(view_.running.begin(), view_.running.end(),
                                    [](const RunningView& r) { return r.paused; });
    const bool nobody = running_.empty() && waiting_.empty();
    const bool does = !plan_.run.empty() || !preempted_.empty() || !plan_.load.empty() ||
                      !plan_.refuse.empty() || view_.adapter_loads_in_flight > 0;
    if (paused || nobody || does) return absl::OkStatus();
    return Broken("I4: {} run, {} wait, and the plan is empty", running_.size(), waiting_.size());
  }

  absl::Status Victims() const {
    const auto is_protected = [this](const RunningView& r) {
      return r.preemptions >= policy_.max_preemptions;
    };
    const auto claim = [this](const RunningView& r) {
      const Priority its = ClassOf(r.priority, policy_);
      const uint64_t counter = policy_.fair_tenants ? view_.tenants->counter(r.tenant, its) : 0;
      return std::tuple(its, counter, r.id);
    };
    int64_t missing = 0;
    for (const auto& [id, r] : running_) {
      if (!r->paused && IsDecode(*r)) missing += MissingPages(*r, 1, policy_.page_tokens);
    }
    const bool ample = missing <= int64_t{view_.free_pages} + view_.evictable_pages;
    for (RequestId id : plan_.preempt) {
      if (!running_.contains(id)) return Broken("I9: {} is preempted and does not run", id);
      const RunningView& victim = *running_.at(id);
      if (victim.paused) continue;  // what a slow reader holds may be taken for other reasons
      if (ample) return Broken("I9: {} is preempted, and nobody lacks a page", id);
      if (policy_.admission == AdmissionMode::kNoEvict) {
        return Broken("I9: {} is preempted although all outputs have room", id);
      }
      for (const auto& [other, r] : running_) {
        if (preempted_.contains(other) || r->paused) continue;
        const bool wrong = is_protected(victim) != is_protected(*r) ? is_protected(victim)
                                                                    : claim(victim) < claim(*r);
        if (wrong) return Broken("I9: {} is preempted rather than {}", id, other);
      }
    }
    return absl::OkStatus();
  }

  // Places are taken for somebody who is more urgent and may be admitted, or are of no use.
  absl::Status GivesWay() const {
    if (plan_.give_way.empty()) return absl::OkStatus();
    if (!policy_.give_way || !plan_.preempt.empty() || !plan_.admit.empty()) {
      return Broken("I9: {} gives way in a step that preempts or admits", plan_.give_way[0]);
    }
    int most_urgent = kPriorities;
    bool anybody = false;
    for (const auto& [id, w] : waiting_) {
      if (!w.ready()) continue;
      anybody = true;
      most_urgent = std::min(most_urgent, static_cast<int>(ClassOf(w.request->priority, policy_)));
    }
    if (!anybody) return Broken("I9: {} gives way to nobody", plan_.give_way[0]);
    for (RequestId id : plan_.give_way) {
      if (!running_.contains(id)) return Broken("I9: {} gives way and does not run", id);
      const RunningView& r = *running_.at(id);
      if (r.paused_since <= view_.now - policy_.parking_delay) continue;
      if (static_cast<int>(ClassOf(r.priority, policy_)) <= most_urgent) {
        return Broken("I9: {} gives way to nobody more urgent", id);
      }
      if (r.preemptions >= policy_.max_preemptions || !IsDecode(r) || r.aged) {
        return Broken("I9: {} gives way again", id);
      }
    }
    return absl::OkStatus();
  }

  absl::Status RunningAreServed() const {
    // Who gives way may leave the token that it would have had.
    if (tokens_left_ <= static_cast<int64_t>(plan_.give_way.size())) return absl::OkStatus();
    for (const auto& [id, r] : running_) {
      if (r->paused || preempted_.contains(id)) continue;
      const int wanted = std::min(r->known_tokens - r->computed_tokens, policy_.max_chunk_tokens);
      if (MissingPages(*r, wanted, policy_.page_tokens) > 0) continue;
      const auto turn = turns_.find(id);
      const int got = turn == turns_.end() ? 0 : turn->second->tokens;
      if (got == wanted || LeavesAShare(r->priority)) continue;
      return Broken("I8: {} gets {} of {} tokens, and {} are left", id, got, wanted, tokens_left_);
    }
    return absl::OkStatus();
  }
  // The most urgent class may be given less than is there.
  bool LeavesAShare(Priority priority) const {
    return policy_.priorities && policy_.lower_class_share > 0 &&
           priority == Priority::kInteractive;
  }

  absl::Status Pinned() const {
    if (!preempted_.empty() || loads_left_ == 0) return absl::OkStatus();
    if (static_cast<int>(waiting_.size()) > policy_.max_passed_over) return absl::OkStatus();
    for (const auto& [id, w] : waiting_) {
      if (!IsPinned(*w.request) || !w.heads_lane || w.state != AdapterState::kStored) continue;
      if (refused_.contains(id) || Loads(w.request->adapter)) continue;
      if (policy_.backfill && plan_.reserved_for == 0) {
        return Broken("I6: {} is pinned, and nothing is reserved", id);
      }
      if (!ordered()) continue;
      std::set<AdapterVersionId> allowed = {0};
      for (const auto& [adapter, bytes] : used_at_first_) allowed.insert(adapter);
      for (const auto& [other, v] : waiting_) {
        if (other <= id && (IsPinned(*v.request) || admitted_.contains(other))) {
          allowed.insert(v.request->adapter);
        }
      }
      for (RequestId other : plan_.admit) {
        if (other < id) continue;
        if (!policy_.backfill) return Broken("I6: {} goes before {}, which is pinned", other, id);
        if (!allowed.contains(waiting_.at(other).request->adapter) && !used_at_first_.empty()) {
          return Broken("I6: {} brings a new adapter before {}, which is pinned", other, id);
        }
      }
    }
    return absl::OkStatus();
  }
  bool Loads(AdapterVersionId adapter) const {
    return std::any_of(plan_.load.begin(), plan_.load.end(),
                       [adapter](const StepPlan::Load& l) { return l.adapter == adapter; });
  }

  absl::Status Overtaking() const {
    std::map<RequestId, int> counted;
    for (const StepPlan::Overtaken& o : plan_.overtaken) {
      if (!waiting_.contains(o.id) || !stays(o.id) || !counted.emplace(o.id, o.times).second) {
        return Broken("I6: {} is overtaken, and does not wait", o.id);
      }
      if (o.id == plan_.reserved_for && policy_.backfill &&
          waiting_.at(o.id).request->overtakes >= policy_.max_backfills) {
        return Broken("I6: {} is overtaken a {}th time", o.id,
                      waiting_.at(o.id).request->overtakes + o.times);
      }
    }
    if (!ordered() || static_cast<int>(waiting_.size()) > policy_.max_passed_over) {
      return absl::OkStatus();
    }
    for (const auto& [id, w] : waiting_) {
      if (!w.heads_lane || !stays(id)) continue;
      const auto after = std::count_if(plan_.admit.begin(), plan_.admit.end(),
                                       [id = id](RequestId other) { return other > id; });
      const auto found = counted.find(id);
      if (after == (found == counted.end() ? 0 : found->second)) continue;
      return Broken("I6: {} go before {}, which is not counted so", after, id);
    }
    return absl::OkStatus();
  }

  bool MayJoin(const WaitingRequest& w) const {
    if (w.adapter == 0 || used_at_first_.contains(w.adapter) || adapters_ == 0) return true;
    return policy_.max_adapter_bytes == 0 ||
           adapter_bytes_ + w.adapter_bytes <= policy_.max_adapter_bytes;
  }
  bool IsKeptFrom(const WaitingRequest& w) const {
    const int all = policy_.max_sequences;
    if (!policy_.fair_tenants || double(places_left_) > policy_.kept_places_share * all) {
      return false;
    }
    int has = 0;
    for (const auto& [id, r] : running_) has += r->tenant == w.tenant;
    for (RequestId id : plan_.admit) has += waiting_.at(id).request->tenant == w.tenant;
    return has > 0 && has >= view_.tenants->share(w.tenant) * all;
  }
  // Beside everybody's whole output, with nobody giving back anything.
  bool SurelyFits(const WaitingRequest& w) const {
    const KnownPrefix prefix = view_.facts->PrefixOf(w.id);
    const int64_t own = PagesFor(static_cast<size_t>(w.known_tokens), policy_.page_tokens);
    const bool wakes = w.adapter != 0 && view_.facts->IsIdle(w.adapter);
    int64_t needs = own - prefix.pages + prefix.idle_pages + (wakes ? w.adapter_pages : 0);
    if (!running_.empty()) needs += policy_.reserve_pages;
    if (policy_.admission != AdmissionMode::kPromptOnly) {
      needs += sole_pages_ + prefix.sole_pages;
      needs += LackingToTheEnd(w.known_tokens, w.left_tokens, own, policy_.page_tokens);
      for (const auto& [id, r] : running_) {
        const auto turn = turns_.find(id);
        const int64_t held =
            r->held_pages + (turn == turns_.end() ? 0 : int64_t{turn->second->new_pages});
        needs += LackingToTheEnd(r->known_tokens, r->left_tokens, held, policy_.page_tokens);
      }
      for (RequestId id : plan_.admit) {
        const WaitingRequest& a = *waiting_.at(id).request;
        const int64_t held = PagesFor(static_cast<size_t>(a.known_tokens), policy_.page_tokens);
        needs += LackingToTheEnd(a.known_tokens, a.left_tokens, held, policy_.page_tokens);
      }
    }
    return needs <= pages_left_;
  }
  bool SomebodyIsBefore(const WaitingRequest& w) const {
    if (plan_.reserved_for != 0 && plan_.reserved_for != w.id) return true;
    if (plan_.pinned > 0) return true;
    if (policy_.backfill) return false;
    return !ordered() || std::any_of(waiting_.begin(), waiting_.end(), [&](const auto& other) {
      return other.first < w.id && stays(other.first);
    });
  }

  // What is left at the end was there when its turn came.
  absl::Status IsNotLeftBehind(const Waiter& waiter) const {
    const WaitingRequest& w = *waiter.request;
    if (!waiter.ready() || !preempted_.empty()) return absl::OkStatus();
    if (refused_.contains(w.id)) {
      return SurelyFits(w) ? Broken("I8: {} is refused and fits", w.id) : absl::OkStatus();
    }
    if (admitted_.contains(w.id)) return absl::OkStatus();
    if (static_cast<int>(waiting_.size()) >= policy_.max_passed_over) return absl::OkStatus();
    if (tokens_left_ == 0 || places_left_ == 0 || SomebodyIsBefore(w) || IsKeptFrom(w) ||
        !MayJoin(w) || !SurelyFits(w)) {
      return absl::OkStatus();
    }
    return Broken("I8: {} waits, with {} tokens, {} places and {} pages left", w.id, tokens_left_,
                  places_left_, pages_left_);
  }

  const PlannerView& view_;
  const SchedulerPolicy& policy_;
  const StepPlan& plan_;
  std::map<RequestId, const RunningView*> running_;
  std::map<RequestId, Waiter> waiting_;
  std::map<RequestId, const StepPlan::Run*> turns_;
  std::set<RequestId> preempted_, admitted_, refused_;
  std::map<AdapterVersionId, uint64_t> used_at_first_;  // by those who run on; their bytes
  // When the plan is made.
  int64_t tokens_left_ = 0, places_left_ = 0, pages_left_ = 0;
  int loads_left_ = 0;
  size_t adapters_ = 0;  // in use
  uint64_t adapter_bytes_ = 0;
  int64_t sole_pages_ = 0;
};

}  // namespace

absl::Status CheckPlan(const PlannerView& view, const SchedulerPolicy& policy,
                       const StepPlan& plan) {
  return PlanCheck(view, policy, plan).All();
}

}  // namespace lorad
