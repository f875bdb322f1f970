// PlanTrace: what a planner sees, moved on by its own plans. Queue, ledger, pool, prefix cache and
// adapter cache are the real ones; an engine is reduced to what carries a plan out: it admits,
// preempts, loads and refuses, gives pages and lets tokens come, a step a call. Nothing is computed
// and nothing overlaps, so a trace is cheap and says what the planner did, not what the engine did.
//
// Thread: the test's.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "memory/unified_pool.h"
#include "scheduler/output_share.h"
#include "scheduler/planner.h"

namespace lorad {

class PlanTrace final : private PlannerFacts {
 public:
  struct Options {
    SchedulerPolicy policy;
    uint32_t pages = 100;
    bool prefix_cache = true;
    std::vector<double> weights = {1};              // by tenant
    std::vector<uint32_t> adapter_pages;            // adapter a has adapter_pages[a - 1]
    std::optional<StepCost> step_cost;              // for objectives of the policy
    uint64_t ledger_floor = 0;                      // where the counters begin
    Duration step = std::chrono::milliseconds(20);  // passes with each
  };
  struct Request {
    size_t tenant = 0;
    Priority priority = Priority::kStandard;
    AdapterVersionId adapter = 0;
    std::vector<int32_t> prompt = {1};
    int output = 1;      // tokens that it will make; 0: it is only scored
    int max_output = 1;  // that it may make, >= output
  };
  // A request that has not ended.
  struct Sequence {
    RequestId id = 0;
    TenantIndex account = 0;
    Request request;
    std::vector<int32_t> tokens;  // prompt and output so far
    int computed = 0;
    int charged = 0;  // of the prompt
    bool running = false;
    bool paused = false;
    TimePoint paused_since = TimePoint::max();
    int preemptions = 0;
    bool aged = false;
    PageList pages;
    PrefixCache::Lease lease;
    PrefixCache::Found found;

    int prompt_tokens() const { return static_cast<int>(request.prompt.size()); }
    int known() const { return static_cast<int>(tokens.size()); }
    int made() const { return known() - prompt_tokens(); }
    int left() const { return request.max_output - made(); }
  };

  explicit PlanTrace(Options options);
  ~PlanTrace() override;

  RequestId Arrive(Request request);
  void Cancel(RequestId id);  // REQUIRES: it has not ended
  void SetPaused(RequestId id, bool paused);
  // A load under way ends. Failed: those who wait for it end, too.
  void FinishLoad(AdapterVersionId adapter, bool failed);
  // Plans, looks (every rule of plan_check.h, the pool's and the queue's books) and carries out.
  absl::Status Step();

  const std::map<RequestId, std::unique_ptr<Sequence>>& sequences() const { return sequences_; }
  const std::vector<AdapterVersionId>& loading() const { return loading_; }
  const StepPlan& plan() const { return plan_; }  // the last
  const Options& options() const { return options_; }
  // Of all plans so far.
  uint64_t hash() const { return hash_; }
  // What a tenant was served, in priced tokens over its weight, and the most that its admitted
  // requests could ever have cost yet.
  double served(size_t tenant) const { return served_[tenant]; }
  double most_outstanding() const { return most_outstanding_; }

  // What happened in all, to see that a trace is worth something.
  struct Totals {
    int admitted = 0, preempted = 0, gave_way = 0, in_vain = 0, loads = 0, refused = 0,
        overtakes = 0, reserved = 0;
    int pinned = 0, drained = 0, cached_tokens = 0, evictions = 0;
  };
  const Totals& totals() const { return totals_; }

 private:
  KnownPrefix PrefixOf(RequestId id) const override;
  bool IsIdle(AdapterVersionId adapter) const override;

  PrefixScope ScopeOf(const Sequence& s) const;
  AdapterState StateOf(AdapterVersionId adapter) const;
  void NoteDepartures();
  void Wait(Sequence* s);
  std::vector<RunningView> Running() const;
  void Note();
  void Carry();
  void MakeRoom(uint32_t pages);
  void SpareKept(bool spared);
  void Admit(RequestId id);
  void Preempt(RequestId id);
  void Load(AdapterVersionId adapter);
  void TakeTurn(const StepPlan::Run& run);
  void LetGo(Sequence* s, bool keep_prefix);
  void End(RequestId id);
  void CountOutstanding();
  absl::Status CheckBooks() const;
  double Cost(const Sequence& s, const TenantLedger::Tokens& tokens) const;
  void Charge(const Sequence& s, const TenantLedger::Tokens& tokens);

  const Options options_;
  UnifiedPool pool_;
  TenantLedger ledger_;
  WaitingQueue queue_;
  OutputShare output_share_;
  TimePoint now_{};
  RequestId last_id_ = 0;
  std::map<RequestId, std::unique_ptr<Sequence>> sequences_;
  std::vector<AdapterVersionId> loading_;
  std::vector<PrefixCache::Lease> copy_leases_;
  StepPlan plan_;
  bool sparing_ = false;
  uint64_t hash_ = 0;
  std::vector<double> served_;
  double most_outstanding_ = 0;
  Totals totals_;
};

}  // namespace lorad
