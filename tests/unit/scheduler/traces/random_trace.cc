#include "tests/unit/scheduler/traces/random_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace lorad {
namespace {

constexpr int kMostDrainingSteps = 100'000;

class Dice {
 public:
  explicit Dice(std::mt19937_64* random) : random_(*random) {}
  int Int(int low, int high) {
    return low + static_cast<int>(random_() % static_cast<uint64_t>(high - low + 1));
  }
  bool Chance(double share) { return static_cast<double>(random_() >> 11) * 0x1.0p-53 < share; }

 private:
  std::mt19937_64& random_;
};

SchedulerPolicy DrawPolicy(Dice* dice) {
  SchedulerPolicy p;
  p.page_tokens = dice->Int(1, 8);
  p.max_sequences = dice->Int(1, 12);
  p.max_step_tokens = dice->Chance(0.2) ? dice->Int(1, 8) : dice->Int(8, 64);
  p.max_chunk_tokens = dice->Int(1, p.max_step_tokens);
  p.max_adapter_loads = dice->Int(1, 3);
  if (dice->Chance(0.3)) p.reserve_pages = static_cast<uint32_t>(dice->Int(1, 5));
  if (dice->Chance(0.4)) p.max_adapter_bytes = static_cast<uint64_t>(dice->Int(100, 2000));
  p.admission = static_cast<AdmissionMode>(dice->Int(0, 2));
  if (dice->Chance(0.4)) p.fair_tenants = p.priorities = false;
  if (dice->Chance(0.2)) p.fair_tenants = false;
  if (dice->Chance(0.2)) p.priorities = false;
  p.kept_places_share = dice->Chance(0.5) ? 0 : dice->Int(1, 10) / 10.0;
  if (dice->Chance(0.5)) p.lower_class_share = 0;
  p.ageing = dice->Chance(0.3) ? Duration::zero() : std::chrono::milliseconds(dice->Int(50, 5000));
  p.backfill = dice->Chance(0.7);
  if (dice->Chance(0.5)) p.max_backfills = dice->Int(1, 8);
  if (dice->Chance(0.2)) p.max_passed_over = dice->Int(1, 10);
  p.max_overtakes = dice->Int(1, 8);
  p.max_overtaken_time = std::chrono::milliseconds(dice->Int(50, 2000));
  if (dice->Chance(0.3)) p.drain_tolerance = 0;
  if (dice->Chance(0.3)) p.kept_requests = dice->Int(0, 4);
  p.give_way = dice->Chance(0.7);
  p.parking_delay = std::chrono::milliseconds(dice->Int(0, 200));
  p.max_preemptions = dice->Int(1, 4);
  return p;
}

}  // namespace

PlanTrace::Options RandomTrace::DrawOptions(std::mt19937_64* random, uint64_t ledger_floor) {
  Dice dice(random);
  PlanTrace::Options o{.policy = DrawPolicy(&dice), .ledger_floor = ledger_floor};
  // Steps of 20 ms, and objectives around it.
  if (dice.Chance(0.3)) {
    o.step_cost = StepCost{.base = 0.001 * dice.Int(1, 20),
                           .prompt_row = 1e-4 * dice.Int(0, 20),
                           .decode_row = 1e-4 * dice.Int(0, 20)};
    for (Objective& objective : o.policy.objectives) {
      if (dice.Chance(0.6)) objective.inter_token = std::chrono::milliseconds(dice.Int(5, 40));
    }
  }
  o.prefix_cache = dice.Chance(0.7);
  o.weights.resize(static_cast<size_t>(dice.Int(1, 4)));
  for (double& weight : o.weights) weight = dice.Chance(0.5) ? 1 : dice.Int(1, 50) / 10.0;
  o.adapter_pages.resize(static_cast<size_t>(dice.Chance(0.2) ? 0 : dice.Int(1, 20)));
  for (uint32_t& pages : o.adapter_pages) pages = static_cast<uint32_t>(dice.Int(1, 6));
  // From what the longest request takes, or less, to room for all.
  const auto longest = static_cast<int>(PagesFor(120, o.policy.page_tokens));
  const int times = dice.Chance(0.5) ? dice.Int(4, 12) : dice.Int(4, 60);
  o.pages =
      static_cast<uint32_t>(dice.Chance(0.1) ? dice.Int(1, longest) : 6 + longest * times / 4);
  return o;
}

RandomTrace::Shape RandomTrace::DrawShape() {
  Dice dice(&random_);
  Shape s;
  s.arrivals = dice.Int(1, 100) / 100.0;
  s.most_waiting = dice.Int(1, 60);
  s.longest_prompt = dice.Int(1, 60);
  s.longest_output = dice.Chance(0.5) ? dice.Int(20, 60) : dice.Int(1, 30);
  if (dice.Chance(0.4)) s.cancel_share = dice.Int(1, 10) / 100.0;
  if (dice.Chance(0.4)) s.pause_share = dice.Int(1, 50) / 100.0;
  if (dice.Chance(0.2)) s.fail_share = dice.Int(1, 50) / 100.0;
  s.load_share = dice.Int(5, 100) / 100.0;
  if (dice.Chance(0.6)) s.shared_share = dice.Int(1, 100) / 100.0;
  s.all_classes = dice.Chance(0.5);
  return s;
}

RandomTrace::RandomTrace(uint64_t seed, uint64_t ledger_floor)
    : random_(seed), trace_(DrawOptions(&random_, ledger_floor)), shape_(DrawShape()) {}

void RandomTrace::Arrive() {
  PlanTrace::Request r;
  r.tenant = static_cast<size_t>(Pick(static_cast<int>(trace_.options().weights.size())));
  if (shape_.all_classes) r.priority = static_cast<Priority>(Pick(kPriorities));
  const auto adapters = static_cast<int>(trace_.options().adapter_pages.size());
  r.adapter = static_cast<AdapterVersionId>(Pick(adapters + 1));
  r.prompt.resize(static_cast<size_t>(1 + Pick(shape_.longest_prompt)));
  const bool shared = Chance(shape_.shared_share);
  const size_t own_from = shared ? static_cast<size_t>(Pick(static_cast<int>(r.prompt.size()))) : 0;
  const auto own = static_cast<int32_t>(1'000'000 + random_() % 1'000'000'000);
  for (size_t i = 0; i < r.prompt.size(); ++i) {
    r.prompt[i] = (i < own_from ? 1000 : own) + static_cast<int32_t>(i);
  }
  r.max_output = Pick(10) == 0 ? 0 : 1 + Pick(shape_.longest_output);
  r.output = Pick(2) == 0 ? r.max_output : std::min(r.max_output, 1 + Pick(r.max_output + 1));
  trace_.Arrive(std::move(r));
}

void RandomTrace::Disturb(bool draining) {
  std::vector<RequestId> waiting, running;
  for (const auto& [id, s] : trace_.sequences()) (s->running ? running : waiting).push_back(id);
  for (int tries = 0; tries < 3 && !draining; ++tries) {
    if (static_cast<int>(waiting.size()) + tries < shape_.most_waiting && Chance(shape_.arrivals)) {
      Arrive();
    }
  }
  const std::vector<AdapterVersionId> loading = trace_.loading();
  for (AdapterVersionId adapter : loading) {
    if (Chance(shape_.load_share)) trace_.FinishLoad(adapter, Chance(shape_.fail_share));
  }
  for (RequestId id : running) {
    const bool paused = trace_.sequences().at(id)->paused;
    if (draining) {
      trace_.SetPaused(id, false);
    } else if (Chance(paused ? 0.2 : 0.1 * shape_.pause_share)) {
      trace_.SetPaused(id, !paused);
    }
  }
  for (const auto* ids : {&running, &waiting}) {
    if (ids->empty() || !Chance(shape_.cancel_share)) continue;
    const RequestId id = (*ids)[static_cast<size_t>(Pick(static_cast<int>(ids->size())))];
    if (trace_.sequences().contains(id)) trace_.Cancel(id);
  }
}

absl::Status RandomTrace::Run(int steps) {
  for (int step = 0; step < steps + kMostDrainingSteps; ++step) {
    if (step >= steps && trace_.sequences().empty()) return absl::OkStatus();
    Disturb(/*draining=*/step >= steps);
    if (absl::Status status = trace_.Step(); !status.ok()) {
      return absl::InternalError(
          fmt::format("{}, in step {}", std::string(status.message()), step));
    }
  }
  return absl::InternalError(
      fmt::format("I4: {} requests do not come to their ends", trace_.sequences().size()));
}

}  // namespace lorad
