#include "tests/simulation/random_case.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "tests/simulation/engine_objective.h"
#include "tests/simulation/policy_rules.h"

namespace lorad::sim {
namespace {

class Dice {
 public:
  explicit Dice(uint64_t seed) : random_(seed) {}

  double Uniform(double low, double high) {
    return low + (high - low) * static_cast<double>(random_() >> 11) * 0x1.0p-53;
  }
  // Evenly spread over the orders of magnitude.
  double Log(double low, double high) { return std::exp(Uniform(std::log(low), std::log(high))); }
  int Int(double low, double high) { return static_cast<int>(Log(low, high + 0.999)); }
  bool Chance(double share) { return Uniform(0, 1) < share; }

 private:
  std::mt19937_64 random_;
};

CostModel DrawMachine(Dice* dice) {
  CostModel cost = *FindCostModel(dice->Chance(0.7) ? "h100" : "cpu");
  cost.overlaps = dice->Chance(0.5);
  if (dice->Chance(0.3)) cost.copy_bytes_per_s = 0;
  // Down to a tier of one small image.
  if (dice->Chance(0.5)) cost.host_tier_bytes = static_cast<uint64_t>(dice->Log(64e6, 16e9));
  if (dice->Chance(0.3)) cost.disk_bytes_per_s = dice->Log(50e6, 3e9);
  return cost;
}

SchedulerPolicy DrawPolicy(Dice* dice) {
  SchedulerPolicy policy;
  policy.max_sequences = dice->Int(1, 256);
  policy.max_step_tokens = policy.max_sequences + dice->Int(1, 4096);
  policy.max_chunk_tokens = dice->Int(1, policy.max_step_tokens);
  policy.max_adapter_loads = dice->Int(1, 8);
  policy.admission = static_cast<AdmissionMode>(dice->Int(1, 3) - 1);
  if (dice->Chance(0.3)) policy.max_adapter_bytes = static_cast<uint64_t>(dice->Log(1e6, 4e9));
  if (dice->Chance(0.2)) policy.max_overtakes = dice->Int(1, 100);
  for (const PolicyRule& rule : PolicyRules()) {
    if (dice->Chance(0.15)) rule.switch_off(&policy);
  }
  return policy;
}

StreamOptions DrawStream(Dice* dice, uint64_t seed, int adapters, double rate, double duration_s) {
  StreamOptions o;
  o.arrivals.adapters = dice->Int(1, adapters);
  o.first_adapter = dice->Int(1, adapters - o.arrivals.adapters + 1) - 1;
  o.arrivals.alpha = dice->Log(0.05, 1);
  o.arrivals.rate = rate;
  o.arrivals.cv = dice->Log(0.3, 8);
  o.arrivals.duration_s = duration_s;
  o.arrivals.input.high = o.arrivals.input.low + dice->Int(1, 800);
  o.arrivals.output.low = dice->Int(1, 16);
  o.arrivals.output.high = o.arrivals.output.low + dice->Int(1, 400);
  o.arrivals.seed = static_cast<uint32_t>(seed);
  o.tenants = dice->Int(1, 5);
  o.first_tenant = dice->Int(1, 3) - 1;
  o.priority = static_cast<Priority>(dice->Int(1, kPriorities) - 1);
  if (dice->Chance(0.3)) o.base_share = dice->Uniform(0, 1);
  if (dice->Chance(0.3)) {
    o.burst_every_s = dice->Log(0.1, 1) * duration_s;
    o.burst_s = dice->Uniform(0.05, 0.9) * o.burst_every_s;
    o.burst_factor = dice->Log(1, 100);
  }
  if (dice->Chance(0.4)) {
    o.shared_share = dice->Uniform(0, 1);
    o.shared_tokens = dice->Int(1, 500);
  }
  if (dice->Chance(0.4)) o.slack = dice->Log(0.01, 3);
  if (dice->Chance(0.3)) {
    o.cancel_share = dice->Uniform(0, 1);
    o.cancel_within_s = dice->Log(0.01, 100);
  }
  if (dice->Chance(0.2)) o.cancel_all_s = dice->Uniform(0, duration_s);
  if (dice->Chance(0.2)) o.deadline_s = dice->Log(0.1, 100);
  return o;
}

// The longest of the workload's requests and its largest adapter must fit, else it is refused.
uint32_t LeastPages(const Workload& workload, const ServerOptions& server) {
  double tokens = 0;
  for (const StreamOptions& o : workload.streams) {
    tokens = std::max(tokens, o.arrivals.input.high + o.shared_tokens +
                                  std::ceil(o.arrivals.output.high * (1 + o.slack)));
  }
  const int rank = *std::max_element(server.ranks.begin(), server.ranks.end());
  return PagesFor(static_cast<size_t>(tokens), server.cost.page_tokens) + 1 +
         server.cost.AdapterPages(rank);
}

}  // namespace

RandomCase MakeRandomCase(uint64_t seed, int requests) {
  Dice dice(seed);
  RandomCase c{.seed = seed, .options = {}, .workload = {}, .description = {}};
  ServerOptions& server = c.options.server;
  server.cost = DrawMachine(&dice);
  server.engine.policy = DrawPolicy(&dice);
  server.engine.max_waiting = dice.Chance(0.3) ? dice.Int(1, 100) : 100000;
  server.engine.share_base_prefixes = dice.Chance(0.3);
  server.prefix_cache = dice.Chance(0.8);
  if (dice.Chance(0.5)) server.ranks = {dice.Int(1, 64)};
  if (dice.Chance(0.2)) server.fail_every = dice.Int(2, 50);
  if (dice.Chance(0.3)) RefuseLate({.ttft_s = dice.Log(0.05, 20)}, &server.engine);
  c.options.servers = dice.Chance(0.7) ? 1 : dice.Int(2, 4);
  c.options.routing = dice.Chance(0.7) ? Routing::kAffine : Routing::kLeastLoaded;

  const int streams = dice.Int(1, 4);
  const int adapters = dice.Int(1, 3000);
  const double rate = server.cost.name == "cpu" ? dice.Log(0.5, 20) : dice.Log(2, 200);
  for (int i = 0; i < streams; ++i) {
    c.workload.streams.push_back(DrawStream(&dice, seed * 16 + static_cast<uint64_t>(i), adapters,
                                            rate / streams, requests / rate));
  }
  c.workload.name = "random";
  while (dice.Chance(0.5)) c.workload.weights.push_back(dice.Log(0.1, 10));
  for (StreamOptions& stream : c.workload.streams) {
    if (!dice.Chance(0.2)) continue;
    stream.slow_share = dice.Log(0.01, 1);
    stream.read_every_s = dice.Log(0.01, 10);
  }
  server.engine.slow_reader_timeout = For(dice.Log(0.1, 60));
  const uint32_t least = LeastPages(c.workload, server);
  server.pages = static_cast<uint32_t>(least * dice.Log(1, 60));
  server.engine.policy.reserve_pages = dice.Chance(0.5) ? 0 : (server.pages - least) / 10;
  const SchedulerPolicy& p = server.engine.policy;
  c.description = fmt::format(
      "{} x {}{}, {} pages, {:.1f} requests/s, {} adapters, steps of {} tokens, "
      "{} sequences, chunks of {}, {} loads",
      c.options.servers, server.cost.name, server.cost.overlaps ? " overlapped" : "", server.pages,
      rate, adapters, p.max_step_tokens, p.max_sequences, p.max_chunk_tokens, p.max_adapter_loads);
  return c;
}

absl::StatusOr<SimulationResult> RunRandomCase(const RandomCase& c) {
  auto requests = MakeRequests(c.workload);
  if (!requests.ok()) return requests.status();
  auto result = Simulate(c.options, *requests, c.workload.weights);
  if (result.ok()) return result;
  return absl::InternalError(
      fmt::format("seed {}: {}\n  {}\n  again: lorad-sim soak --first-seed {} --seeds 1", c.seed,
                  std::string(result.status().message()), c.description, c.seed));
}

}  // namespace lorad::sim
