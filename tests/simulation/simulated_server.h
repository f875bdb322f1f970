// SimulatedServer: one lorad in virtual time. Engine, planner, pool, prefix cache and adapter cache
// are those of the daemon; the executor and the loads are simulated. Its clock is its own: it runs
// ahead while it computes a step, and whoever drives several servers always steps the one that is
// furthest behind (simulation.h).
//
// It checks invariants as it goes, each of its requests' outputs and the one end of each.
//
// Thread: the simulation's only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <queue>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "memory/unified_pool.h"
#include "server/engine.h"
#include "tests/simulation/fairness_meter.h"
#include "tests/simulation/invariants.h"
#include "tests/simulation/measurements.h"
#include "tests/simulation/overtake_count.h"
#include "tests/simulation/simulated_executor.h"
#include "tests/simulation/simulated_loads.h"

namespace lorad::sim {

struct ServerOptions {
  CostModel cost;
  EngineOptions engine;  // vocab_size, max_model_len and page_tokens are the simulation's
  uint32_t pages = 0;    // of the pool; 0: as the cost model says
  bool prefix_cache = true;
  std::vector<int> ranks = {8, 16, 32, 64};  // adapter i has rank ranks[i mod size] ...
  std::vector<uint64_t> adapter_bytes;       // ... unless this says how large its image is
  bool warm = false;          // images lie in host memory at the start, as many as fit
  int fail_every = 0;         // every so-many-th load fails; 0: none
  int validate_every = 1009;  // steps between proofs of the books; 0: none
  bool check_outputs = true;
};

// Of the image of adapter `adapter`.
uint64_t ImageBytes(const ServerOptions& options, int adapter);
uint32_t ImagePages(const ServerOptions& options, int adapter);

class SimulatedServer final : private EngineObserver {
 public:
  struct Totals {
    uint64_t steps = 0;
    uint64_t preemptions = 0;
    uint64_t evictions = 0;
    uint64_t queried_tokens = 0, cached_tokens = 0;  // of prompts: looked up, found
    uint64_t batch = 0;                              // sequences, over the steps
    uint64_t adapters = 0;                           // distinct, over the steps
    int most_waiting = 0;
    // Of one request: by how many of its tenant and class that came later (OvertakeCount).
    int most_overtaken = 0;
  };

  // `requests` and `measurements` are borrowed; `number` is the server's in the records.
  SimulatedServer(const ServerOptions& options, const std::vector<SimRequest>* requests, int number,
                  int adapters, std::vector<double> weights, int tenants,
                  Measurements* measurements);
  ~SimulatedServer() override;

  // Gives it the request, as a gRPC thread would. It may refuse.
  void Submit(size_t request);
  void Cancel(size_t request);  // its client leaves; nothing if it has ended

  // When it does something next; none: when it is asked to.
  std::optional<TimePoint> next() const { return next_; }
  // Goes to that time and takes a step.
  absl::Status Step();
  absl::Status CheckDrained() const;

  int unfinished() const { return engine_->unfinished(); }
  const Totals& totals() const { return totals_; }
  const SimulatedLoads::Stats& loads() const { return loads_.stats(); }
  double busy_s() const { return executor_.busy_s(); }
  double unfairness() const { return fairness_.worst_spread(); }
  TimePoint now() const { return clock_.Now(); }
  // Of everything that happened, in order: equal runs have equal hashes.
  uint64_t hash() const { return hash_; }

 private:
  // A request whose stream is open.
  struct Open {
    size_t request = 0;
    RequestId id = 0;
    std::shared_ptr<TokenStream> stream;
    uint64_t chain = 0;  // of the prompt and what came: what the next token must follow from
    bool admitted = false;
    bool read_due = false;  // its slow reader will look
    int tokens = 0;
    TimePoint first, last;
    double longest_gap = 0;
  };

  using Reading = std::pair<TimePoint, size_t>;  // when, request

  std::shared_ptr<const AdapterVersion> VersionOf(int adapter);
  std::unique_ptr<GenerationRequest> Build(size_t request, Open* open) const;
  void WakeAt(double seconds);
  // Something was written to its stream.
  void OnReady(Open* open);
  void ReadSlowly();
  void Drain(Open* open);
  void Accept(Open* open, TokenId token);
  void End(Open* open, const StreamEnd& end);
  void Note(uint64_t what) { hash_ = Scramble(hash_ ^ what); }
  static uint64_t Scramble(uint64_t x);
  void Fault(std::string what);
  absl::Status CheckAll(bool ran);
  std::optional<TimePoint> IdleUntil() const;

  void OnStep(const StepReport& report) override;
  void OnAdmit(const GenerationRequest& request) override;
  void OnEvictions(int adapters) override;

  const ServerOptions options_;
  const std::vector<SimRequest>& requests_;
  const int number_;
  Measurements* const measurements_;
  VirtualClock clock_;
  UnifiedPool pool_;
  SimulatedExecutor executor_;
  SimulatedLoads loads_;
  Invariants invariants_;
  FairnessMeter fairness_;
  OvertakeCount overtakes_;
  std::vector<std::shared_ptr<AdapterVersion>> versions_;  // id - 1; made when first asked for
  std::vector<std::string> tenants_;                       // their names
  std::vector<double> weights_;                            // and weights
  std::unordered_map<size_t, Open> open_;                  // by request
  std::vector<Open*> ready_;                               // streams that the last step wrote to
  // When slow readers look at their streams.
  std::priority_queue<Reading, std::vector<Reading>, std::greater<>> readings_;
  std::optional<TimePoint> next_;
  uint64_t moves_ = 0;  // first admissions and ends
  uint64_t engine_steps_ = 0;
  uint64_t hash_ = 0;
  std::string fault_;  // the first
  Totals totals_;
  std::unique_ptr<Engine> engine_;  // the last: it goes first
};

}  // namespace lorad::sim
