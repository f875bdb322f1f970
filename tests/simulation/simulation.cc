#include "tests/simulation/simulation.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <queue>
#include <utility>

#include "tests/simulation/token_chain.h"

namespace lorad::sim {
namespace {

// The whole of one simulation while it runs.
class Run {
 public:
  Run(const SimulationOptions& options, const std::vector<SimRequest>& requests,
      std::vector<double> weights)
      : options_(options), requests_(requests), result_(MakeResult(options, requests)) {
    int adapters = 0;
    for (const SimRequest& r : requests) adapters = std::max(adapters, r.adapter + 1);
    for (int i = 0; i < options.servers; ++i) {
      servers_.push_back(std::make_unique<SimulatedServer>(options.server, &requests, i, adapters,
                                                           weights, Tenants(requests),
                                                           &result_.measurements));
    }
  }

  absl::Status All() {
    while (true) {
      SimulatedServer* const server = Furthest();
      const double arrival = NextArrival();
      const double leave = departures_.empty() ? kNever : departures_.top().first;
      if (server == nullptr && arrival == kNever) return Drained();
      const TimePoint step = server == nullptr ? TimePoint::max() : *server->next();
      if (std::min(arrival, leave) != kNever && At(std::min(arrival, leave)) <= step) {
        if (arrival <= leave) {
          Arrive();
        } else {
          Leave();
        }
        continue;
      }
      ++result_.steps;
      if (absl::Status status = server->Step(); !status.ok()) return status;
    }
  }

  SimulationResult Take() && {
    for (const auto& server : servers_) {
      result_.servers.push_back(server->totals());
      result_.loads.push_back(server->loads());
      result_.busy_s += server->busy_s();
      result_.unfairness = std::max(result_.unfairness, server->unfairness());
      result_.end_s = std::max(result_.end_s, SecondsAt(server->now()));
      result_.hash = Scramble(result_.hash ^ server->hash());
    }
    return std::move(result_);
  }

 private:
  using Departure = std::pair<double, size_t>;  // when, request

  static int Tenants(const std::vector<SimRequest>& requests) {
    int tenants = 1;
    for (const SimRequest& r : requests) tenants = std::max(tenants, r.tenant + 1);
    return tenants;
  }
  static SimulationResult MakeResult(const SimulationOptions& options,
                                     const std::vector<SimRequest>& requests) {
    return {.measurements = Measurements(requests.size(), Tenants(requests), options.window_s)};
  }

  double NextArrival() const {
    if (result_.offered == requests_.size() || result_.steps >= options_.max_steps) return kNever;
    return requests_[result_.offered].start_s;
  }

  // The server with the least time; null: none has anything to do.
  SimulatedServer* Furthest() const {
    SimulatedServer* furthest = nullptr;
    for (const auto& server : servers_) {
      if (!server->next().has_value()) continue;
      if (furthest == nullptr || *server->next() < *furthest->next()) furthest = server.get();
    }
    return furthest;
  }

  void Arrive() {
    const size_t request = result_.offered++;
    const SimRequest& r = requests_[request];
    result_.arrivals_s = r.start_s;
    loads_.clear();
    for (const auto& server : servers_) loads_.push_back(server->unfinished());
    const int chosen = Route(options_.routing, static_cast<uint64_t>(r.adapter + 1), loads_);
    servers_[static_cast<size_t>(chosen)]->Submit(request);
    if (r.cancel_s != kNever) departures_.push({std::max(r.cancel_s, r.start_s), request});
  }

  void Leave() {
    const size_t request = departures_.top().second;
    departures_.pop();
    const int server = result_.measurements.record(request).server;
    servers_[static_cast<size_t>(server)]->Cancel(request);
  }

  absl::Status Drained() const {
    for (const auto& server : servers_) {
      if (absl::Status status = server->CheckDrained(); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  const SimulationOptions& options_;
  const std::vector<SimRequest>& requests_;
  SimulationResult result_;
  std::vector<std::unique_ptr<SimulatedServer>> servers_;
  std::vector<int> loads_;  // unfinished requests by server
  std::priority_queue<Departure, std::vector<Departure>, std::greater<>> departures_;
};

}  // namespace

absl::StatusOr<SimulationResult> Simulate(const SimulationOptions& options,
                                          const std::vector<SimRequest>& requests,
                                          std::vector<double> weights) {
  Run run(options, requests, std::move(weights));
  if (absl::Status status = run.All(); !status.ok()) return status;
  return std::move(run).Take();
}

}  // namespace lorad::sim
