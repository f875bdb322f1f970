// SimulatedLoads: adapters on their way into a pool, in virtual time. Files come from one disk, one
// after the other; where there is a host tier (the real memory/host_tier.h decides what it keeps)
// an image that is in it needs only the copy, also one after the other, and is used while it is
// copied, as in server/adapter_staging.h.
//
// Thread: the simulation's only.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "memory/host_tier.h"
#include "server/engine.h"
#include "tests/simulation/cost_model.h"
#include "tests/simulation/simulated_executor.h"

namespace lorad::sim {

class SimulatedLoads {
 public:
  struct Stats {
    uint64_t loads = 0;
    uint64_t host_hits = 0;
    uint64_t failures = 0;
    double read_s = 0;  // that the disk was busy
    double copy_s = 0;  // that the bus was
  };

  // All are borrowed. Every `fail_every`-th load ends with an error; 0: none.
  SimulatedLoads(const CostModel& cost, const VirtualClock* clock, SimulatedExecutor* executor,
                 int fail_every);

  // An AdapterLoadFn.
  void Start(std::shared_ptr<const AdapterVersion> version, std::vector<uint32_t> pages,
             std::function<void(absl::StatusOr<LoadedAdapter>)> done);
  // The image lies in host memory from the start, if there is a tier and it has room.
  void Warm(AdapterVersionId id, uint64_t image_bytes);
  // When the next of those under way is over.
  std::optional<TimePoint> next() const;
  bool reading() const { return clock_->Now() < disk_free_; }
  bool copying() const { return clock_->Now() < copy_free_; }
  // Ends what is over now.
  void Complete();

  const Stats& stats() const { return stats_; }

 private:
  void Finish(const AdapterVersion& version, std::vector<uint32_t> pages, bool in_tier,
              const std::function<void(absl::StatusOr<LoadedAdapter>)>& done);
  double ReadSeconds(uint64_t image_bytes) const;
  void AtTime(TimePoint when, std::function<void()> what);

  const CostModel& cost_;
  const VirtualClock* const clock_;
  SimulatedExecutor* const executor_;
  const int fail_every_;
  std::unique_ptr<HostTier> tier_;  // null: none
  TimePoint disk_free_{}, copy_free_{};
  std::map<std::pair<TimePoint, uint64_t>, std::function<void()>> events_;  // by time, then order
  uint64_t order_ = 0;
  Stats stats_;
};

}  // namespace lorad::sim
