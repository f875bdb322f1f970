#include "tests/simulation/simulated_loads.h"

#include <algorithm>

#include "memory/base/error_detail.h"
#include "tests/simulation/simulated_transfer.h"

namespace lorad::sim {

SimulatedLoads::SimulatedLoads(const CostModel& cost, const VirtualClock* clock,
                               SimulatedExecutor* executor, int fail_every)
    : cost_(cost), clock_(clock), executor_(executor), fail_every_(fail_every) {
  if (cost.copy_bytes_per_s > 0 && cost.host_tier_bytes >= cost.page_bytes) {
    tier_ =
        std::make_unique<HostTier>(static_cast<uint32_t>(cost.host_tier_bytes / cost.page_bytes));
  }
}

void SimulatedLoads::Warm(AdapterVersionId id, uint64_t image_bytes) {
  const uint32_t blocks = cost_.PagesOf(image_bytes);
  if (tier_ == nullptr) return;
  const HostTier::Stats stats = tier_->stats();
  if (stats.used_blocks + blocks > stats.total_blocks) return;
  if (!tier_->BeginWrite(id, blocks).has_value()) return;
  tier_->FinishWrite(id, ReadSeconds(image_bytes));
  tier_->Release(id);
}

double SimulatedLoads::ReadSeconds(uint64_t image_bytes) const {
  return cost_.load_s + static_cast<double>(image_bytes) / cost_.disk_bytes_per_s;
}

void SimulatedLoads::Start(std::shared_ptr<const AdapterVersion> version,
                           std::vector<uint32_t> pages,
                           std::function<void(absl::StatusOr<LoadedAdapter>)> done) {
  const AdapterVersionId id = version->id;
  const bool hit = tier_ != nullptr && tier_->Acquire(id).has_value();
  if (hit) {
    ++stats_.host_hits;
    return Finish(*version, std::move(pages), true, done);
  }
  const double seconds = ReadSeconds(version->image_bytes);
  stats_.read_s += seconds;
  const bool in_tier =
      tier_ != nullptr && !tier_->Contains(id) && tier_->BeginWrite(id, version->pages).has_value();
  disk_free_ = std::max(disk_free_, clock_->Now()) + For(seconds);
  AtTime(disk_free_, [this, version = std::move(version), pages = std::move(pages),
                      done = std::move(done), seconds, in_tier]() mutable {
    if (in_tier) tier_->FinishWrite(version->id, seconds);
    Finish(*version, std::move(pages), in_tier, done);
  });
}

// The image is in host memory, held if it is in the tier.
void SimulatedLoads::Finish(const AdapterVersion& version, std::vector<uint32_t> pages,
                            bool in_tier,
                            const std::function<void(absl::StatusOr<LoadedAdapter>)>& done) {
  ++stats_.loads;
  if (fail_every_ > 0 && stats_.loads % static_cast<uint64_t>(fail_every_) == 0) {
    ++stats_.failures;
    if (in_tier) tier_->Release(version.id);
    return done(WithReason(absl::DataLossError("simulated damage"), "ADAPTER_DAMAGED"));
  }
  executor_->PlaceAdapter(version.id, pages);
  auto image = std::make_shared<AdapterImage>();
  image->layouts.resize(1);
  image->layouts[0].pages = version.pages;
  image->layouts[0].image_bytes = version.image_bytes;
  std::shared_ptr<ImageTransfer> transfer;
  if (cost_.copy_bytes_per_s > 0) {
    const double seconds = static_cast<double>(version.image_bytes) / cost_.copy_bytes_per_s;
    stats_.copy_s += seconds;
    copy_free_ = std::max(copy_free_, clock_->Now()) + For(seconds);
    if (in_tier) AtTime(copy_free_, [this, id = version.id] { tier_->Release(id); });
    std::vector<std::unique_ptr<kernels::AdapterTransfer>> ranks;
    ranks.push_back(std::make_unique<SimulatedTransfer>(clock_, copy_free_));
    transfer = std::make_shared<ImageTransfer>(std::move(ranks), nullptr);
  }
  done(LoadedAdapter{.image = std::move(image), .transfer = std::move(transfer)});
}

void SimulatedLoads::AtTime(TimePoint when, std::function<void()> what) {
  events_.emplace(std::pair(when, order_++), std::move(what));
}

std::optional<TimePoint> SimulatedLoads::next() const {
  if (events_.empty()) return std::nullopt;
  return events_.begin()->first.first;
}

void SimulatedLoads::Complete() {
  while (!events_.empty() && events_.begin()->first.first <= clock_->Now()) {
    const std::function<void()> what = std::move(events_.begin()->second);
    events_.erase(events_.begin());
    what();
  }
}

}  // namespace lorad::sim
